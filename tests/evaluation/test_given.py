"""Adversarial images from elsewhere are checked image by image, and count as an attack."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from contracts.evaluated import folder, record, table
from regmix.attacks import Pgd
from regmix.cli.entry import main
from regmix.data import Digits, draw, load
from regmix.evaluation.given import load_given, named_given, tolerance
from regmix.evaluation.subject import choose_images
from regmix.runs.load import load_model
from regmix.threats import L1, L2, Linf
from regmix.types import UserError

TINY = "--train-examples 200 --validation 50 --epochs 4 --model.width 4 --averaging none --method standard"
EPS = 16 / 255


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(f"train digits-regmix {TINY} --out {path}".split()) == 0
    return path


@pytest.fixture(scope="module")
def attacked(run) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of 40 test images, their adversarial images, and which of them survive."""
    images, rows = load(Digits(), "test"), draw(load(Digits(), "test").labels, 40)[1]
    x, y, model = (
        images.images[rows].float() / 255,
        images.labels[rows],
        load_model(run, checkpoint="last").model.eval(),
    )
    adversarial = (x + Pgd(steps=10)(model, x, y, Linf(EPS))).clamp(0, 1)
    with torch.no_grad():
        right, survive = model(x).argmax(1) == y, model(adversarial).argmax(1) == y
    assert 0 < int((right & survive).sum()) < int(right.sum())
    return rows, adversarial, right & survive


def evaluate(path: Path, *files: Path, attacks: str = "clean") -> int:
    words = f"evaluate {path} --attacks {attacks} --examples 40 --eps 16/255 --checkpoint last --no-verdict"
    return main([*words.split(), "--adversarial", ",".join(map(str, files))])


def survivors(path: Path, name: str) -> list[bool]:
    header, *rows = table(path)
    return [row[header.index(name)] == "1" for row in rows]


def formats(root: Path, rows: Tensor, adversarial: Tensor) -> list[Path]:
    whole = load(Digits(), "test").images.float() / 255
    whole[rows] = adversarial
    torch.save(adversarial, root / "tensor.pt")
    torch.save({"adv_complete": whole}, root / "autoattack.pth")
    torch.save((adversarial, torch.zeros(len(rows))), root / "pair.pt")
    np.savez(root / "arrays.npz", images=adversarial.numpy(), index=rows.numpy())
    np.save(root / "array.npy", whole.permute(0, 2, 3, 1).numpy())
    return [root / name for name in ("tensor.pt", "autoattack.pth", "pair.pt", "arrays.npz", "array.npy")]


def test_every_format_gives_what_the_model_itself_says(run, attacked, tmp_path, capsys) -> None:
    path, (rows, adversarial, survive) = shutil.copytree(run, tmp_path / "run"), attacked
    files = formats(tmp_path, rows, adversarial)
    assert evaluate(path, *files, attacks="fgsm") == 0
    for file in files:
        assert survivors(path, f"adversarial:{file.stem}@16/255") == survive.tolist()
        column = record(path)["columns"][f"adversarial:{file.stem}@16/255"]
        assert column["source"]["path"] == str(file)
        assert column["cost"] == {**column["cost"], "forward": column["cost"]["images"], "backward": 0}
    page = tmp_path / "r.html"
    assert main(["report", str(path), "-o", str(page)]) == 0
    assert "Worst case" in page.read_text()
    # A file that changes makes its column outdated.
    torch.save(adversarial.clamp(0, 0.99), files[0])
    capsys.readouterr()
    assert main(["report", str(path), "-o", str(page)]) == 0
    assert "has changed since" in page.read_text()


def test_png_files_count_as_they_are_and_rows_without_one_are_not_attacked(run, attacked, tmp_path) -> None:
    """16/255 is a whole number of grey levels, so rounding to the nearest one stays inside the ball."""
    path, (rows, adversarial, _) = shutil.copytree(run, tmp_path / "run"), attacked
    pictures, model = tmp_path / "pictures", load_model(run, checkpoint="last").model.eval()
    pictures.mkdir()
    levels = (adversarial * 255).round().to(torch.uint8)
    for row, image in zip(rows.tolist()[:30], levels, strict=False):
        Image.fromarray(image[0].numpy()).save(pictures / f"{row:06d}.png")
    assert evaluate(path, pictures) == 0
    images = load(Digits(), "test")
    with torch.no_grad():
        right = model(images.images[rows].float() / 255).argmax(1) == images.labels[rows]
        rounded = model(levels.float() / 255).argmax(1) == images.labels[rows]
    expected = right & (rounded | (torch.arange(40) >= 30))
    assert survivors(path, "adversarial:pictures@16/255") == expected.tolist()
    column = record(path)["columns"]["adversarial:pictures@16/255"]
    assert column["not_attacked"] == int(right[30:].sum())


def test_ours_are_read_again_in_every_format(run, tmp_path) -> None:
    path = shutil.copytree(run, tmp_path / "run")
    words = f"evaluate {path} --attacks pgd-5 --examples 40 --eps 16/255 --checkpoint last --no-verdict --save"
    assert main(words.split()) == 0
    images = folder(path) / "adversarial" / "pgd-5@16_255"
    saved = torch.load(images / "adversarial.pt", weights_only=True)["adv_complete"]
    assert saved.shape == (40, 1, 8, 8)
    assert saved.dtype == torch.float32
    held = record(path)["columns"]["pgd-5@16/255"]
    other = shutil.copytree(run, tmp_path / "other")
    assert evaluate(other, images, images / "adversarial.npz") == 0
    again = [*words.replace(str(path), str(other)).split()[:-1], "--adversarial"]
    assert main([*again, str(images / "adversarial.pt")]) == 2, "adversarial.npz is called alike"
    assert main([*again, str(shutil.copy(images / "adversarial.pt", tmp_path / "tensor.pt"))]) == 0
    broken = [name for name in record(other)["columns"] if name.startswith("adversarial")]
    assert len(broken) == 3
    correct = record(other)["columns"]["clean"]["correct"]
    for name in broken:
        assert record(other)["columns"][name]["correct"] == correct - held["rounded"]["still_adversarial"]


def refusal(path: Path, threat: object = Linf(EPS)) -> str:
    test = choose_images(Digits(), 40)
    with pytest.raises(UserError) as refused:
        load_given(path, test, [threat])
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_violations_are_refused_with_their_number_and_size(attacked, tmp_path) -> None:
    rows, adversarial, _ = attacked
    file = tmp_path / "x.pt"

    def saved(images: Tensor) -> Path:
        torch.save(images, file)
        return file

    x = load(Digits(), "test").images[rows].float() / 255
    far = x.clone()
    far[:3] = (x[:3] + 20 / 255).clamp(0, 1)
    assert "3 of 40 images are farther from their test images than eps=16/255, by up to 0.0157" in refusal(saved(far))
    assert "40 of 40 images are farther" in refusal(saved(adversarial.roll(1, 0))), "the order"
    assert "2 of 40 images leave [0, 1], by up to 0.1" in refusal(saved(torch.cat([x[:38], x[38:] - 0.1])))
    assert "divide them by 255" in refusal(saved(255 * x))
    assert "holds images of 1x8x7" in refusal(saved(x[..., :7]))
    assert "has 39 images; give one for each of the 500 test images" in refusal(saved(x[:39]))
    assert "NaN or infinity" in refusal(saved(x / 0))
    assert "holds 0 tensors" in refusal(saved([1, 2]))
    (tmp_path / "evil.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert "cannot be read as tensors" in refusal(tmp_path / "evil.pt")
    np.savez(tmp_path / "y.npz", images=x.numpy(), index=rows.numpy(), label=np.full(40, 3))
    assert "labels are not those of the test images" in refusal(tmp_path / "y.npz")
    np.savez(tmp_path / "z.npz", images=x.numpy(), index=np.zeros(40, dtype=int))
    assert "names a position twice" in refusal(tmp_path / "z.npz")
    assert "does not exist" in refusal(tmp_path / "none.pt")


def test_rounding_to_8_bits_that_leaves_the_ball_is_refused(attacked, tmp_path) -> None:
    """At eps = 0.06, 15.3 grey levels, the nearest level of x + eps is inside, and one more level is not."""
    rows, *_ = attacked
    levels = load(Digits(), "test").images[rows].int()
    for more, fits in ((15, True), (16, False)):
        np.savez(tmp_path / "x.npz", images=(levels + more).clamp(0, 255).byte().numpy(), index=rows.numpy())
        if fits:
            load_given(tmp_path / "x.npz", choose_images(Digits(), 40), [Linf(0.06)])
        else:
            assert "the rounding of 8-bit files" in refusal(tmp_path / "x.npz", Linf(0.06))


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.05), L1(0.3)])
def test_float32_rounding_is_tolerated_and_more_is_not(threat, tmp_path) -> None:
    test = choose_images(Digits(), None)
    x = test.images.pixels().float() / 255
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) * (x < 0.5)
    delta = noise * (threat.eps / threat.norm(noise)).view(-1, 1, 1, 1)
    torch.save(x + delta, tmp_path / "x.pt")
    given, _ = load_given(tmp_path / "x.pt", test, [threat])
    rows = torch.arange(len(x))
    inside = given.at(rows.tolist()).attempt(lambda images: images, x, rows, threat).delta
    assert float(threat.norm(inside).max()) <= threat.eps * (1 + 1e-5) + 1e-7
    more = 1 + 3 * tolerance(threat, (1, 8, 8)) / threat.eps
    torch.save(x + more * delta, tmp_path / "x.pt")
    with pytest.raises(UserError, match="are farther"):
        load_given(tmp_path / "x.pt", test, [threat])


def test_a_folder_is_called_by_its_whole_name(tmp_path) -> None:
    """Ours are called after their column, such as pgd-10@0.15."""
    for name in ("pgd-10@0.1", "pgd-10@0.15"):
        (tmp_path / name).mkdir()
    names = [named.name for named in named_given([tmp_path / "pgd-10@0.1", tmp_path / "pgd-10@0.15"])]
    assert names == ["adversarial:pgd-10@0.1", "adversarial:pgd-10@0.15"]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": np.zeros((0, 1, 8, 8)), "index": np.zeros(0, int)}, "holds no images"),
        ({"images": np.zeros((2, 1, 8, 8)), "index": np.array([0.9, 3.1])}, "one whole number for each"),
        ({"images": np.full((500, 1, 8, 8), np.nan)}, "holds NaN or infinity"),
        ({"images": np.zeros((500, 1, 8, 8), int)}, "images of torch.int64"),
    ],
)
def test_arrays_that_say_nothing_are_refused(arrays, says, tmp_path) -> None:
    np.savez(tmp_path / "given.npz", **arrays)
    with pytest.raises(UserError, match=says):
        load_given(tmp_path / "given.npz", choose_images(Digits(), 10), [Linf(EPS)])


def test_a_damaged_archive_is_named(tmp_path) -> None:
    path = tmp_path / "given.npz"
    np.savez_compressed(path, images=np.zeros((10, 1, 8, 8), np.float32))
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(byte ^ 255 for byte in content[60:80])
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        load_given(path, choose_images(Digits(), 10), [Linf(EPS)])


def test_the_order_of_bytes_does_not_matter_and_text_is_no_tensor(tmp_path) -> None:
    test = choose_images(Digits(), 10)
    np.save(tmp_path / "big.npy", (test.images.pixels().numpy() / 255).astype(">f4"))
    given, _ = load_given(tmp_path / "big.npy", test, [Linf(EPS)])
    assert len(given.images) == 10
    (tmp_path / "text.pt").write_text("enough")
    with pytest.raises(UserError, match="cannot be read as tensors"):
        load_given(tmp_path / "text.pt", test, [Linf(EPS)])
