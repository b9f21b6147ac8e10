"""A checkpoint that the test creates and saves is loaded and driven as one from the hub would be."""

import numpy as np
import pytest
import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from components.captioning.hub_captioner import HubCaptionerConfig, load_hub_captioner
from components.data.tokenization import train_tokenizer

CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blip")
    tokenizer = train_tokenizer(["a photo of a red circle"], vocab_size=300, max_length=32)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "encoder_hidden_size": 32, "projection_dim": 32, **small}
    tokens = {"bos_token_id": 3, "eos_token_id": 1, "pad_token_id": 0, "sep_token_id": 1}
    vision = {"image_size": 32, "patch_size": 8, "projection_dim": 32, **small}
    torch.manual_seed(0)
    BlipForConditionalGeneration(BlipConfig(text_config=text | tokens, vision_config=vision)).save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tokenizer = train_tokenizer(["USER: describe this ASSISTANT: a red circle"], vocab_size=320, max_length=128)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=8, **small),
        text_config=LlamaConfig(vocab_size=len(tokenizer), eos_token_id=1, pad_token_id=0, bos_token_id=3, **small),
        image_token_index=image_token,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    side = {"height": 32, "width": 32}
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(folder)
    return str(folder)


def settings(checkpoint, **changes):
    given = {"prompts": {"ssc": "a photo of", "dsc": ""}, "max_new_tokens": 6, "min_side": 32, "batch_size": 2}
    return HubCaptionerConfig(checkpoint=checkpoint, **(given | changes))


def test_a_prompted_model_answers_without_its_prompt(blip, pixels):
    captions = load_hub_captioner(settings(blip), "ssc").caption(pixels, list("abcde"))
    assert len(captions) == 5
    assert all(caption and not caption.lower().startswith("a photo of") for caption in captions)


def test_a_model_without_prompt_captions_too(blip, pixels):
    captioner = load_hub_captioner(settings(blip), "dsc")
    assert captioner.caption(pixels, list("abcde")) == captioner.caption(pixels, list("vwxyz"))


def test_a_chat_model_is_asked_through_its_chat_template(llava, pixels):
    config = settings(llava, prompts={"dsc": "describe this"})
    captions = load_hub_captioner(config, "dsc").caption(pixels, list("abcde"))
    assert len(captions) == 5
    assert all("USER" not in caption and "describe" not in caption for caption in captions)


def test_a_kind_without_a_prompt_is_refused(blip):
    with pytest.raises(ValueError, match="no prompt for captions of kind 'dsc'; prompts has ssc"):
        load_hub_captioner(settings(blip, prompts={"ssc": "a photo of"}), "dsc")
