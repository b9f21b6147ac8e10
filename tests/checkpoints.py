"""Small checkpoints in the form of those on the hub, for tests of the code that loads the large ones."""

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
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
    T5Config,
    T5ForConditionalGeneration,
)

from components.data.tokenization import train_tokenizer

CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def save_blip(folder: Path) -> str:
    """A captioner that takes a prompt's words as the beginning of its caption, or none."""
    tokenizer = train_tokenizer(["a photo of a red circle"], vocab_size=300, max_length=32)
    text = {"vocab_size": len(tokenizer), "encoder_hidden_size": 32, "projection_dim": 32, **SMALL}
    tokens = {"bos_token_id": 3, "eos_token_id": 1, "pad_token_id": 0, "sep_token_id": 1}
    vision = {"image_size": 32, "patch_size": 8, "projection_dim": 32, **SMALL}
    torch.manual_seed(0)
    BlipForConditionalGeneration(BlipConfig(text_config=text | tokens, vision_config=vision)).save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return str(folder)


def save_llava(folder: Path) -> str:
    """A chat model that sees pictures."""
    tokenizer = train_tokenizer(["USER: describe this ASSISTANT: a red circle"], vocab_size=320, max_length=128)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=8, **SMALL),
        text_config=LlamaConfig(vocab_size=len(tokenizer), eos_token_id=1, pad_token_id=0, bos_token_id=3, **SMALL),
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


def save_t5(folder: Path, texts: list[str]) -> T5ForConditionalGeneration:
    """An encoder-decoder with its tokenizer."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(texts, vocab_size=300, max_length=512)
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    t5.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return t5


def save_vae(folder: Path) -> AutoencoderKL:
    """An f4 autoencoder with a scaling of its own, as Stable Diffusion's has."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        scaling_factor=0.25,
        shift_factor=0.5,
    ).eval()
    vae.save_pretrained(folder)
    return vae
