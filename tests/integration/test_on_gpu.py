"""What only a GPU can show; `make gpu` runs it. Without one, all of it is skipped."""

import pytest
import torch

from compositions import composed_once
from crane.gate import build
from crane.methods import build_model, compile_towers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
TRAINED = ("crane", "anomalyclip", "vand", "adaclip")


def step(method, device):
    config = composed_once("train", "backbone=tiny", f"method={method}")
    model, loss = build_model(config).to(device), build(config.loss, "loss")
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)).to(device)
    mask = torch.zeros(2, 112, 112, dtype=torch.int32, device=device)
    mask[1, 20:60, 20:60] = 1
    truth = {
        "mask": mask,
        "label": torch.tensor([0, 1], device=device),
        "has_mask": torch.tensor([True, True]),
        "class_id": torch.tensor([0, 0]),
    }
    text, generator = model.training_text(["object"]), torch.Generator().manual_seed(0)
    losses = model.losses(loss, model.encode(images), text, truth, generator)
    losses.total.backward()
    gradients = [p.grad for p in model.trained.parameters() if p.grad is not None]
    return losses.total.detach().cpu(), [grad.cpu() for grad in gradients]


@pytest.mark.parametrize("method", TRAINED)
def test_a_training_step_equals_the_cpus(method):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    (ours, gradients), (wanted, others) = step(method, "cuda"), step(method, "cpu")
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3 * float(other.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("compiled", ["none", "default"])
def test_bfloat16_and_compiled_maps_are_close(compiled):
    model = build_model(composed_once("train", "backbone=tiny", "method=crane"))
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(images)
        model.cuda()
        compile_towers(model, compiled)
        with torch.autocast("cuda", torch.bfloat16):
            ours = model(images.cuda())
    assert (ours.map.cpu() - wanted.map).abs().max() < 0.02


@pytest.mark.parametrize("strategy", ["auto", "ddp"])  # ddp: NCCL, with one process
def test_a_training_with_a_cache_runs_on_a_gpu(strategy, crane, tiny, use, tmp_path):
    words = [*tiny, "trainer.accelerator=gpu", "trainer.devices=1", f"trainer.strategy={strategy}"]
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    done = crane("train", *words, *data, "cache=source", f"cache.folder={tmp_path / 'cache'}")
    assert done.code == 0, done.err
    assert any((tmp_path / "cache").iterdir())
