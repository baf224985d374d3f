"""The comparisons with the FastAT Benchmark and with the authors' own repositories."""

from functools import partial
from typing import Any

from public_code.benchmark import case
from public_code.case import Case
from public_code.net import BATCH, CLASSES
from public_code.originals import (
    aaer,
    atas,
    elle,
    fast_adversarial,
    function,
    guided,
    law,
    liet,
    mart,
    n_fgsm,
    rs_cs,
    sdi,
    ssat,
    stored,
    tdat,
    understanding,
    universal,
    zero_grad,
)

from regmix import methods as m

SMOOTH: dict[str, Any] = {"label_smoothing": 0.4}
MASS = 1 - 0.4 * (CLASSES - 1) / CLASSES
ALIASED = {"replace": {"adv_images.grad.detach()\n": "adv_images.grad.detach().clone()\n"}}
ALIAS = "the gradient that moves u is not a copy, and the backward pass of the loss adds to it: next row"
SPARED = "the code computes the clean output that guides the attack in every step, this package where it guides"
IN_EVAL = {
    "replace": {"# self.model.eval()\n": "self.model.eval()\n", "# train\n": "self.model.train()\n"}
}  # fmt: skip
GAT: dict[str, Any] = {"mirrored": True, "per_epoch": 4, "clock_epochs": 100, "frozen": True}
NUAT: dict[str, Any] = {"mirrored": True, "epochs": 3, "per_epoch": 2, "frozen": True}
TDAT: dict[str, Any] = {"clock_epochs": 110, "unused": 1, "inside": True}
TWICE = {"replace": {"criterion(r_out, labels)": "criterion(out, labels)"}}

BENCHMARK = [
    case(m.FgsmAt(), "FGSMAT"),
    case(m.FgsmRs(), "FGSMRS"),
    case(m.NFgsm(), "NFGSM"),
    case(m.ZeroGrad(), "ZeroGrad"),
    case(m.GradAlign(), "GradAlign"),
    case(
        m.NAaer(drop_gradient="none"),
        "AAER",
        settings={"lamda2": 1.5, "lamda3": 0.15, "clamp": 0, "fgsm_alpha": 1},
        sharp=20.0,
    ),
    case(m.RsAaer(drop_gradient="none"), "AAER", sharp=20.0),
    case(m.Ssat(), "SSAT"),
    case(m.Elle(noise=1.0, step_size=1.25, lam=1.0), "ELLE", inside=True),
    case(m.FreeAt(replays=3), "Free_AT", settings={"m": 3, "total_epoch": 3}, replays=3, part="one batch"),
    case(
        m.FreeAt(replays=3),
        "Free_AT",
        settings={"m": 3, "total_epoch": 3},
        per_epoch=6,
        replays=3,
        part="two batches",
        differs=True,
        remark="the code begins every batch at its images; the paper and its code keep the perturbation",
    ),
    case(m.PgdAt(attack_batchnorm="eval"), "PGD_AT"),
    case(
        m.Gat(),
        "GAT",
        differs=True,
        remark="in every other step the code's attack takes the softmax of probabilities: next row",
        **GAT,
    ),
    case(m.Gat(), "GAT", settings=TWICE, part="one softmax", remark=SPARED, **GAT),
    case(
        m.NuAt(),
        "Nu_AT",
        differs=True,
        remark="the code attacks in train mode, the authors' own in evaluation mode: next row",
        **NUAT,
    ),
    case(m.NuAt(), "Nu_AT", settings=IN_EVAL, part="in evaluation mode", remark=SPARED, **NUAT),
    case(
        m.FgsmMep(reset=2),
        "FGSM_PGI",
        settings=SMOOTH | {"index": True, "epochs_reset": 2},
        mass=MASS,
        epochs=4,
        per_epoch=1,
        inside=True,
    ),
    case(
        m.FgsmMepCs(),
        "FGSM_MEP_CS",
        settings={"index": True},
        mass=0.6,
        epochs=4,
        per_epoch=1,
        unused=1,
        clock_epochs=100,
        repeat=True,
    ),
    case(m.FgsmRsCs(), "FGSM_RS_CS", mass=0.6, epochs=4, per_epoch=1, clock_epochs=100),
    case(m.FgsmPco(), "FGSM_PCO", settings={"index": True}, mass=0.6, epochs=3, per_epoch=1),
    case(m.FgsmUap(), "FGSM_UAP", settings=SMOOTH, mass=MASS, differs=True, remark=ALIAS),
    case(m.FgsmUap(), "FGSM_UAP", settings=SMOOTH | ALIASED, mass=MASS, part="with a copy"),
    case(m.FgsmCuap(), "FGSM_CUAP", settings=SMOOTH, mass=MASS, differs=True, remark=ALIAS),
    case(m.FgsmCuap(), "FGSM_CUAP", settings=SMOOTH | ALIASED, mass=MASS, part="with a copy"),
    case(m.FgsmFuap(), "FGSM_FUAP", settings=SMOOTH, mass=MASS, differs=True, remark=ALIAS),
    case(m.FgsmFuap(), "FGSM_FUAP", settings=SMOOTH | ALIASED, mass=MASS, part="with a copy"),
    case(m.Liet(), "LIET", epochs=2, per_epoch=22, settings={"label_smoothing": 0.6}),
]

SMALL = ("--batch-size", str(BATCH))
LOGGED = "the code makes one more pass, for its log"

ORIGINALS = [
    Case(m.FgsmRs(), "locuslab/fast_adversarial", fast_adversarial("train_fgsm.py"), arguments=SMALL),
    Case(
        m.FreeAt(replays=2), "locuslab/fast_adversarial", fast_adversarial("train_free.py"), per_epoch=4,
        arguments=(*SMALL, "--minibatch-replays", "2"), replays=2, inside=True,
    ),
    Case(m.PgdAt(steps=7), "locuslab/fast_adversarial", fast_adversarial("train_pgd.py"), arguments=SMALL),
    Case(
        m.GradAlign(), "tml-epfl/understanding-fast-adv-training", understanding, inside=True, unused=1,
        arguments=("--attack_init", "zero", "--grad_align_cos_lambda", "0.2", "--batch_size", str(BATCH)),
    ),
    Case(m.NFgsm(), "pdejorge/N-FGSM", n_fgsm, arguments=(*SMALL, "--out-dir", ".", "--root-model-dir", ".")),
    Case(
        m.ZeroGrad(), "rohban-lab/catastrophic_overfitting", zero_grad,
        arguments=(*SMALL, "--attack", "zerograd", "--epsilon", "8", "--fname", "run"),
    ),
    Case(m.Trades(), "yaodongyu/TRADES", function("trades.py", "trades_loss", perturb_steps=10, beta=6.0),
         remark="the code computes the clean output twice"),
    Case(
        m.Mart(), "YisenWang/MART", mart(False), differs=True,
        remark="constants in the code, 0.0001, 1e-12 and 1e-7, inside and beside logarithms: next row",
    ),
    Case(m.Mart(), "YisenWang/MART", mart(True), "without constants"),
    Case(
        m.Gat(), "val-iisc/GAMA-GAT",
        guided("GAT_cifar10.py", "for epoch in range(epochs)", "\n#####", "Guided_Attack", l2_reg=10.0, mul=4.0,
               lr_factor=10.0, LR=0.1), mirrored=True, per_epoch=4, clock_epochs=100, frozen=True,
        remark=SPARED,
    ),
    Case(
        m.NuAt(), "val-iisc/NuAT",
        guided("NuAT_WA_cifar10.py", "Nuc_reg = 0.0", "\n#####", "NucAttack", Nuc_max=4), "WA", clock_epochs=100,
        remark=SPARED, **NUAT,
    ),
    Case(
        m.Atas(), "HuangZhiChao95/ATAS", atas, epochs=8, per_epoch=1, repeat=True, clock_epochs=30,
        arguments=(*SMALL, "--arch", "PreActResNet18", "--epsilon", "8"),
    ),
    Case(m.Liet(), "fzjcdt/LIET", liet, per_epoch=22, clock_epochs=100),
    Case(m.FgsmUap(), "fzjcdt/fgsm_uap", universal("FGSM_One_UAP"), mass=MASS, differs=True, remark=ALIAS),
    Case(m.FgsmUap(), "fzjcdt/fgsm_uap", universal("FGSM_One_UAP", ALIASED["replace"]), "with a copy", mass=MASS),
    Case(m.FgsmCuap(), "fzjcdt/fgsm_uap", universal("FGSM_Class_UAP"), mass=MASS, differs=True, remark=ALIAS),
    Case(m.FgsmCuap(), "fzjcdt/fgsm_uap", universal("FGSM_Class_UAP", ALIASED["replace"]), "with a copy", mass=MASS),
    Case(m.FgsmFuap(), "fzjcdt/fgsm_uap", universal("FGSM_UAP"), mass=MASS, differs=True, remark=ALIAS),
    Case(m.FgsmFuap(), "fzjcdt/fgsm_uap", universal("FGSM_UAP", ALIASED["replace"]), "with a copy", mass=MASS),
    Case(
        m.FgsmMepCs(), "Mengnan-Zhao-Happy/ConvergeSmooth", stored("FGSM_MEP_CS.py", "50000"), mass=0.6, epochs=4,
        per_epoch=1, repeat=True, clock_epochs=100, unused=1, arguments=(*SMALL, "--epsilon", "8", "--alpha", "8"),
    ),
    Case(
        m.FgsmRsCs(), "Mengnan-Zhao-Happy/ConvergeSmooth", rs_cs, "three names mended", mass=0.6, epochs=4,
        per_epoch=1, clock_epochs=100, arguments=(*SMALL, "--epsilon", "8", "--alpha", "8"),
    ),
    Case(
        m.FgsmPco(), "HandingWangXDGroup/FGSM-PCO", stored("FGSM-PCO.py", "50000"), mass=0.6, epochs=4, per_epoch=1,
        repeat=True, unused=1, arguments=SMALL,
    ),
    Case(
        m.NAaer(drop_gradient="none"), "tmllab/2023_NeurIPS_AAER", aaer, sharp=20.0,
        arguments=(*SMALL, "--model", "PreActResNet18", "--lamda2", "1.5", "--lamda3", "0.15"),
    ),
    Case(
        m.RsAaer(drop_gradient="none"), "tmllab/2023_NeurIPS_AAER", aaer, sharp=20.0,
        arguments=(*SMALL, "--model", "PreActResNet18", "--lamda2", "2.5", "--clamp", "1", "--alpha", "1.25"),
    ),
    Case(m.Ssat(), "Harry24k/catastrophic-overfitting", ssat),
    Case(m.Elle(), "LIONS-EPFL/ELLE", elle(lin_reg=1000.0, lambda_schedule="constant"), inside=True, unused_each=1,
         remark=LOGGED),
    Case(
        m.Elle(lam=4000.0, schedule="adaptive", sensitivity=0.5), "LIONS-EPFL/ELLE",
        elle(lin_reg=0.0, lambda_aux=4000.0, lambda_schedule="onoff", sensitivity=0.5), "ELLE-A", inside=True,
        per_epoch=12, unused_each=1, remark=LOGGED,
    ),
    Case(
        m.Tdat(), "bookman233/TDAT", tdat, arguments=SMALL, differs=True,
        remark="a constant in the code, 1.0000001 in place of 1: next row", **TDAT,
    ),
    Case(
        m.Tdat(), "bookman233/TDAT", partial(tdat, replace={"1.0000001": "1.0"}), "1 in place of 1.0000001",
        arguments=SMALL, **TDAT,
    ),
    Case(
        m.FgsmMep(reset=2), "jiaxiaojunQAQ/FGSM-PGI", stored("FGSM_MEP.py", "50000"), mass=0.6, epochs=2, per_epoch=1,
        repeat=True, unused=1, arguments=(*SMALL, "--epochs_reset", "2"),
    ),
    Case(m.FgsmLaw(), "jiaxiaojunQAQ/FGSM-LAW", law, mass=0.7, pairs=True, arguments=SMALL),
    Case(
        m.FgsmSdi(refresh=3), "jiaxiaojunQAQ/FGSM-SDI", sdi, "one name mended", mass=0.5, per_epoch=5, inside=True,
        arguments=("--batch_size", str(BATCH), "--att_num", "3"),
    ),
    Case(
        m.FgsmPgk(), "jiaxiaojunQAQ/FGSM-PGK",
        stored("FGSM_PGK_CIFAR10.py", "49000", "50000", models="CIFAR10_models"),
        mass=0.5, epochs=3, per_epoch=1, repeat=True, unused=1, arguments=SMALL,
    ),
]  # fmt: skip

CASES = [*BENCHMARK, *ORIGINALS]
