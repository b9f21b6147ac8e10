"""The code version of every asset.

Raise a number when the asset's code would make something else from the same inputs: the fingerprint and Dagster's
staleness both read it.
"""

CODE_VERSIONS = {
    "raw_pairs": "2",
    "image_set": "3",
    "evaluation_clip": "1",
    "attribute_judge": "2",
    "second_judge": "1",
    "clip": "1",
    "base_captioner": "1",
    "ssc_captioner": "1",
    "dsc_captioner": "1",
    "champion_captioners": "3",
    "recaptioned": "3",
    "training_set": "1",
    "vae": "1",
    "latents": "1",
    "prompt_upsampler": "1",
    "text_encoder": "1",
    "latent_diffusion": "1",
    "diffusion_decoder": "1",
    "consistency_decoder": "2",
    "caption_blend_study": "4",
    "evaluation_report": "6",
}
