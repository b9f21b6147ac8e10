"""The loss against its definition, and a gang of two against one worker with the whole batch."""

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn import functional as F

from components.diffusion.contrastive import contrastive_loss, ids_of_texts

SCALE = torch.tensor(10.0)


def embeds(seed, rows=6, width=4):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator), dim=-1)


def test_it_is_the_symmetric_cross_entropy_of_clip():
    images, texts = embeds(0), embeds(1)
    logits = 10 * images @ texts.T
    expected = -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).mean() / 2
    torch.testing.assert_close(contrastive_loss(images, texts, torch.arange(6), SCALE), expected)


def test_a_repeated_text_is_no_negative():
    images, texts = embeds(0), embeds(1)
    texts[3] = texts[0]
    ids = ids_of_texts(["a", "b", "c", "a", "d", "e"])
    assert ids[0] == ids[3]
    assert len(set(ids.tolist())) == 5
    repeated = contrastive_loss(images, texts, ids, SCALE)
    assert repeated < contrastive_loss(images, texts, torch.arange(6), SCALE)
    torch.testing.assert_close(
        contrastive_loss(images[:1], texts[:1], ids[:1], SCALE), torch.tensor(0.0)
    )  # alone, or among its like, a text is always found


def network():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 4), torch.nn.Parameter(torch.tensor(2.0))


def gradients(rows):
    layer, log_scale = network()
    images = F.normalize(layer(embeds(2)[rows]), dim=-1)
    loss = contrastive_loss(images, embeds(3)[rows], torch.arange(6)[rows], log_scale.exp())
    loss.backward()
    return [loss.detach(), layer.weight.grad, layer.bias.grad, log_scale.grad]


def _worker(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    averaged = gradients(slice(rank * 3, rank * 3 + 3))
    for value in averaged:
        dist.all_reduce(value)
        value /= 2
    torch.save(averaged, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_average_to_one_workers_gradient(tmp_path):
    multiprocessing.spawn(_worker, args=(str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    alone = gradients(slice(0, 6))
    for rank in range(2):
        for found, expected in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), alone, strict=True):
            torch.testing.assert_close(found, expected)
