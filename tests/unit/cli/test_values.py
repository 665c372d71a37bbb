"""Values that do not fit end in one sentence that names the key, before anything is loaded."""

import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crane.cli.arguments import Arguments
from crane.cli.validation import check_arguments
from crane.errors import UsageError

INTEGER = "must be an integer of at least"
SEED = "seed must be an integer from 0 to 4294967295, not"
TRAIN = [
    # text, truth values, null, fractions and numbers that are not finite
    ("seed=one", f"{SEED} 'one'"),
    ("seed=", f"{SEED} ''"),
    ("seed='7'", f"{SEED} '7'"),
    ("seed=1.5", f"{SEED} 1.5"),
    ("seed=null", f"{SEED} null"),
    ("seed=true", f"{SEED} true"),
    ("seed=-1", f"{SEED} -1"),
    ("seed=4294967296", f"{SEED} 4294967296"),
    ("image_size=[112,224]", f"image_size {INTEGER} 1, not [112, 224]"),
    ("image_size=0", f"image_size {INTEGER} 1, not 0"),
    ("epoch=2.5", f"epoch {INTEGER} 1 or last or best, not 2.5"),
    ("epoch=first", "not 'first'"),
    ("epoch=0", "epoch must be"),
    ("monitor=null", "monitor must be text that is not empty, not null"),
    ("test=maybe", "test must be true or false, not 'maybe'"),
    ("test=1", "test must be true or false, not 1"),
    ("allow_download=flase", "allow_download must be true or false, not 'flase'"),
    ("allow_download=null", "allow_download must be true or false, not null"),
    ("skip_finished=no_way", "skip_finished must be true or false"),
    ("objective=", "objective must be text that is not empty"),
    ("compile=true", "compile must be none, default, reduce-overhead or max-autotune, not true"),
    ("trainer.max_epochs=1.5", f"trainer.max_epochs {INTEGER} 1, not 1.5"),
    ("trainer.max_epochs=null", f"trainer.max_epochs {INTEGER} 1, not null"),
    ("trainer.max_epochs=-1", f"trainer.max_epochs {INTEGER} 1, not -1"),
    ("trainer.limit_test_batches=1", "trainer.limit_test_batches must be null: every image"),
    ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val must be a number of at least 0"),
    ("data.batch_size=many", "data.batch_size must be a number, not 'many'"),
    ("data.batch_size=true", "data.batch_size must be a number, not true"),
    ("scoring.blur_sigma=nan", "scoring.blur_sigma must be a finite number, not nan"),
    ("scoring.temperature=inf", "scoring.temperature must be a finite number, not inf"),
    ("data.drop_last=often", "data.drop_last must be true or false, not 'often'"),
    ("overlay.alpha=nan", "overlay.alpha must be a number from 0 to 1, not nan"),
    ("overlay.num_normal=-1", f"overlay.num_normal {INTEGER} 0, not -1"),
    ("overlay.gallery.num_normal=-1", f"overlay.gallery.num_normal {INTEGER} 0, not -1"),
    ("overlay.choose=nice", "overlay.choose must be random, best or worst, not 'nice'"),
    ("table_columns=aupro", "table_columns must be a list; type table_columns=[aupro]"),
    ("optimizer.lr=0", "optimizer.lr must be a number above 0, not 0"),
    ("optimizer.lr=-1", "optimizer.lr must be a number above 0, not -1"),
    ("optimizer.lr=nan", "optimizer.lr must be a number above 0, not nan"),
    ("optimizer.betas=[0.9,1]", "optimizer.betas must be a list of two numbers from 0 to below 1"),
    ("optimizer.betas=[0.9]", "optimizer.betas must be a list of two numbers from 0 to below 1"),
    ("+optimizer.weight_decay=-1", "optimizer.weight_decay must be a number of at least 0"),
    ("objective=foo", "objective: unknown metric 'foo'; choose one of image_auroc"),
    ("monitor=foo", "monitor: unknown validation value 'foo'; choose one of val/mean"),
    ("monitor=aupro", "monitor: unknown validation value 'aupro'; did you mean val/aupro?"),
    ("table_columns=[aupr]", "table_columns: unknown metric 'aupr'; did you mean aupro?"),
    ("optimizer.betas=large", "optimizer.betas must be a list; type optimizer.betas=[large]"),
    # places
    ("run_dir=", "run_dir must be a path, not ''"),
    ("run_dir=null", "run_dir must be a path, not null"),
    ("datasets_dir=", "datasets_dir must be a path"),
    ("results_store=", "results_store must be a path, or null, not ''"),
    ("resume=2024", "resume: 2024 does not exist; give the checkpoints/last.ckpt"),
    ("source=[dtd] datasets_dir=x", "data set dtd: x/dtd does not exist; get it from the Google"),
    ("source=[folder] source.folder.root=y", "data set folder: y does not exist; change"),
    ("source=[] targets=[visa]", "data set visa: datasets/visa does not exist"),
    # references, repetitions, keys that nothing reads
    ("seed=${nope}", "seed has no value: interpolation key 'nope' not found"),
    ("image_size=${nope.at.all}", "image_size has no value: interpolation key"),
    ("scoring.blur_sigma=${oc.env:NO_SUCH_VARIABLE}", "scoring.blur_sigma has no value: "),
    ("+experiment=foo", "unknown key experiment; nothing reads +experiment=foo"),
    ("seed=1 seed=2", "seed is given more than once"),
    ("+dataset=visa", "unknown key dataset; nothing reads +dataset=visa"),
    ("+group=foo", "unknown key group; nothing reads +group=foo"),
    ("source=[folder] source.folder.root= targets=[]", "source.folder.root must be a path, not"),
    ("loss.image_weight=inf", "loss.image_weight must be a finite number, not inf"),
    ("guide=tiny guide.attention.beta=nan", "guide.attention.beta must be a finite number"),
    ("source=[folder] source.folder.mask_threshold=nan", "mask_threshold must be a finite number"),
    ("trainer.limit_test_batches=0.5", "trainer.limit_test_batches must be null: every image"),
]
PREDICT = [
    ("checkpoint=null input=x", "checkpoint must be a path, not null"),
    ("checkpoint=5 input=x", "unknown checkpoint (there is no such file, and no such name) '5'"),
    ("checkpoint=. input=x", "checkpoint: the folder . holds no prompts/epoch_N.safetensors"),
    ("input=null checkpoint=a", "input must be a path or a list"),
    ("input= checkpoint=a", "input must be a path or a list"),
    ("checkpoint=HERE input=2024", "input: 2024 does not exist; give an image, a folder, a glob"),
    ("checkpoint=HERE input=[nowhere]", "input: nowhere does not exist"),
    ("output=null checkpoint=a input=x", "output must be a path, not null"),
    ("batch_size=2.5 checkpoint=a input=x", f"batch_size {INTEGER} 1, not 2.5"),
    ("part_size=2.5 checkpoint=a input=x", f"part_size {INTEGER} 1, not 2.5"),
    ("num_workers=banana checkpoint=a input=x", "num_workers must be an integer of at least 0 or"),
    ("threshold=banana checkpoint=a input=x", "threshold must be a number from 0 to 1, or null"),
    ("threshold=50 checkpoint=a input=x", "threshold must be a number from 0 to 1, or null"),
    ("calibration.false_alarm_rate=nan checkpoint=a input=x", "calibration.false_alarm_rate must"),
    ("maps=bmp checkpoint=a input=x", "maps must be png, npy or none, not 'bmp'"),
    ("threshold=nan checkpoint=a input=x", "threshold must be a number from 0 to 1, or null"),
    ("input=[] checkpoint=a", "input must be a path or a list of paths, not []"),
    ("output= checkpoint=a input=x", "output must be a path, not ''"),
    ("image_size=${nope} checkpoint=a input=x", "image_size has no value: interpolation key"),
    ("allow_download=1 checkpoint=a input=x", "allow_download must be true or false, not 1"),
    ("overlay.alpha=2 checkpoint=a input=x", "overlay.alpha must be a number from 0 to 1, not 2"),
    ("checkpoint=a", "input is required: crane predict input=…"),
]
OTHERS = [
    ("weights hydra.foo=1", "Could not override 'hydra.foo'"),
    ("weights hydra/launcher=foo", "Could not find 'hydra/launcher/foo'"),
    ("cache prune max_gb=nan", "max_gb must be a number of at least 0, or null, not nan"),
    ("cache prune max_gb=true", "max_gb must be a number of at least 0, or null, not true"),
    ("cache prune unused_days=-1", "unused_days must be a number of at least 0, or null, not -1"),
    ("data list num_workers=2.5", "num_workers must be an integer of at least 0 or auto, not 2.5"),
    ("data list fast=quick", "fast must be true or false, not 'quick'"),
    ("report x max_pictures=-1", f"max_pictures {INTEGER} 0, not -1"),
    ("report x columns=[]", "columns must be a non-empty list"),
    ("report x figures=bmp", "figures must be pdf, svg or png, or null, not 'bmp'"),
    ("reproduce nowhere", "experiments: nowhere has no recipe.yaml"),
    ("reproduce x seeds=[1.5]", "seeds must be a list, each entry an integer from 0 to"),
    ("reproduce x plan_only=1", "plan_only must be true or false, not 1"),
    ("workspace entity=null datasets=[a]", "entity must be text that is not empty, not null"),
]
REFUSED = [
    *((f"train {typed}", said) for typed, said in TRAIN),
    *((f"predict {typed}", said) for typed, said in PREDICT),
    *OTHERS,
]

pytestmark = pytest.mark.usefixtures("composed_once")


@pytest.mark.parametrize(("line", "said"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_value_that_does_not_fit_names_its_key(crane, line, said):
    words = line.replace("HERE", __file__).split()
    outcome = crane(*words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.startswith("crane: ")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    "typed",
    [
        *("input=2024", "output=2024", "run_dir=2024", "image_size=28", "threshold=1"),
        *("num_workers=auto", "num_workers=0", "calibration.input=2024", "weights_dir=2024"),
    ],
)
def test_a_value_that_fits_is_taken(check, typed):
    given = [] if typed.startswith("input") else ["input=2024"]
    check("predict", "checkpoint=a.ckpt", typed, *given)


QUICK = [
    *("--version", "--help", "predict --help", "data list", "data list mvtec", "cache list"),
    *("train seed=one", "train sorce=[mvtec]", "train attention=qqq", "test checkpoint=nowhere"),
    *("train source=[dtd]", "train source=[folder] source.folder.root=nowhere", "report nowhere"),
    *("predict checkpoint=here input=nowhere", "reproduce nowhere", "workspace entity=null"),
]
HEAVY = (
    *("torch", "lightning", "torchmetrics", "pandas", "pyarrow", "matplotlib", "plotly", "scipy"),
    *("wandb", "timm", "open_clip", "torchvision", "skimage", "tensorboard", "huggingface_hub"),
)


@pytest.mark.long
def test_answers_without_a_model_import_nothing_heavy(tmp_path):
    (tmp_path / "here").touch()
    code = f"""
import sys
from crane.cli.main import main
for line in {QUICK!r}:
    sys.argv = ["crane", *line.split()]
    try:
        main()
    except SystemExit:
        pass
    found = sorted({{*{HEAVY!r}}} & set(sys.modules))
    assert not found, (line, found)
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.stdout.splitlines()[-1:] == ["done"], done.stderr
    assert done.stderr.count("crane: ") == sum("nowhere" in q or "=" in q for q in QUICK)


KEYS = (
    *("seed", "image_size", "batch_size", "num_workers", "threshold", "input", "output", "maps"),
    *("overlay.alpha", "overlay.num_normal", "calibration.false_alarm_rate", "scoring.blur_sigma"),
    *("engine", "part_size", "precision", "weights_dir", "allow_download", "nope", "~seed", "+a.b"),
)
WORDS = st.sampled_from(
    [
        "null",
        "true",
        "nan",
        "-inf",
        "1e999",
        "${nope}",
        "${oc.env:HOME}",
        "[1,2]",
        "{a: 1}",
        "=",
        "'",
    ]
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(
        st.sampled_from(KEYS), WORDS | st.integers().map(str) | st.text(max_size=8), max_size=4
    )
)
def test_any_overrides_end_in_a_line_or_are_taken(typed):
    """Whatever is typed, the checks before the command raise nothing but the user's mistake."""
    line = [f"{key}={value}" for key, value in typed.items()]
    with suppress(UsageError):
        check_arguments(Arguments("predict", [*line, "checkpoint=a"]))
