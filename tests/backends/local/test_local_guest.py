"""A process belongs to its application: after every load and answer, all its switches are as they were."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, locale, logging, os, random, signal, sys, tempfile, threading, warnings
from pathlib import Path
import huggingface_hub, numpy, torch, tqdm, transformers
from PIL import Image
from vision_backends import open_image
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest
from vision_backends.engine.event_loop import engine_loop

folders = json.loads(sys.argv[1])
picture = open_image(Image.effect_noise((64, 64), 60).convert("RGB"))
library = transformers.utils.logging
ASKED = {
    "caption_model": ("describe", DescribeRequest()),
    "embedding_model": ("embed", EmbedRequest()),
    "detection_model": ("detect", DetectRequest()),
    "open_vocabulary_model": ("detect", DetectRequest(labels=("a cat",))),
}

def of_torch():
    return {
        "dtype": str(torch.get_default_dtype()), "device": str(torch.get_default_device()),
        "grad": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(), "interop threads": torch.get_num_interop_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "deterministic warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "matmul": torch.get_float32_matmul_precision(), "autocast": torch.is_autocast_enabled("cpu"),
        "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled],
        "tf32": [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32],
        "mkldnn": torch.backends.mkldnn.enabled, "anomaly": torch.is_anomaly_enabled(),
        "tracing": torch.jit.is_tracing(), "random": hash(torch.get_rng_state().numpy().tobytes()),
        "init": {name: id(getattr(torch.nn.init, name)) for name in dir(torch.nn.init)},
        "module": [id(torch.nn.Module.__call__), id(torch.nn.Module.__setattr__), id(torch.nn.Linear.__init__)],
    }

def of_python():
    known = logging.root.manager.loggerDict.items()
    return {
        "environment": dict(os.environ), "folder": os.getcwd(), "locale": locale.setlocale(locale.LC_ALL),
        "warnings": [*map(str, warnings.filters), id(warnings.showwarning)],
        "root": [logging.root.level, list(map(str, logging.root.handlers)), logging.root.manager.disable],
        "loggers": {
            name: [each.level, list(map(str, each.handlers)), each.propagate, each.disabled, len(each.filters)]
            for name, each in known if isinstance(each, logging.Logger)
        },
        "hooks": [id(sys.excepthook), id(threading.excepthook), id(sys.unraisablehook), id(sys.displayhook)],
        "tracing": [str(sys.gettrace()), str(sys.getprofile())], "recursion": sys.getrecursionlimit(),
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "path": sys.path[:], "hidden": sorted(name for name, module in sys.modules.items() if module is None),
        "random": hash(random.getstate()), "thread": threading.current_thread().name,
    }

def of_libraries():
    return {
        "numpy": [numpy.geterr(), numpy.random.get_state()[1].tolist(), numpy.random.get_state()[2]],
        "transformers": [library.get_verbosity(), library.is_progress_bar_enabled(), str(library._tqdm_hook)],
        "huggingface_hub": [
            huggingface_hub.logging.get_verbosity(), huggingface_hub.utils.are_progress_bars_disabled()
        ],
        "client": id(huggingface_hub.utils._http._GLOBAL_CLIENT_FACTORY), "tqdm": id(tqdm.tqdm.get_lock()),
    }

def state():
    return {"torch": of_torch(), "python": of_python(), "libraries": of_libraries()}

def differences(before, after, place=""):
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from differences(before.get(key), after.get(key), f"{place}/{key}")
    elif before != after:
        yield f"{place}: {before!r} became {after!r}"

async def ask(backend, task, request):
    await getattr(backend, task)([picture], request, timeout_s=400)

def load_all(engine, folders):
    failures = []
    def load(role, folder):
        models = {**dict.fromkeys(ASKED, ""), role: folder}
        with tempfile.TemporaryDirectory() as cache:
            backend = LocalBackend(**models, engine=engine, tuning_cache=TuningCache(Path(cache)))
            try:
                engine_loop().run(lambda: ask(backend, *ASKED[role]))
            except Exception as error:
                failures.append(f"{folder}: {error!r}")
            backend.close()
    threads = [threading.Thread(target=load, args=each) for each in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures

def set_all():
    torch.set_default_dtype(torch.float64), torch.set_grad_enabled(False), torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True), torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark, torch.backends.mkldnn.enabled = True, False
    warnings.simplefilter("error"), numpy.seterr(all="raise"), sys.setrecursionlimit(2000)
    logging.basicConfig(level=logging.ERROR), library.set_verbosity_error(), library.disable_progress_bar()
    huggingface_hub.utils.disable_progress_bars(), huggingface_hub.logging.set_verbosity_error()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGTERM, lambda *_: None)
    sys.excepthook = lambda *_: None

# What the libraries do when they are imported is theirs; one conversion imports all that conversions need.
converted = [each for each in folders if each[0] == "detection_model"]
told = {"imports": [*load_all("torch", folders), *load_all("auto", converted)]}
for name, prepare in {"as it comes": lambda: None, "set otherwise": set_all}.items():
    prepare()
    for engine in ("torch", "auto"):
        before = state()
        told[f"{name}, {engine}"] = [*load_all(engine, folders), *differences(before, state())]
print(json.dumps(told))
"""


@pytest.mark.timeout(600)  # it loads five models, and converts them, on however busy a machine
def test_the_switches_of_the_process_are_as_they_were(model):
    """Whatever they were, with every engine, and though several models of all kinds are loaded simultaneously."""
    folders = [
        ("caption_model", str(model("blip_of_two_cats"))),
        ("caption_model", str(model("llava"))),
        ("embedding_model", str(model("clip"))),
        ("detection_model", str(model("d_fine"))),
        ("open_vocabulary_model", str(model("grounding_dino"))),
    ]
    command = [sys.executable, "-c", PROGRAM, json.dumps(folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    rounds = [f"{name}, {engine}" for name in ("as it comes", "set otherwise") for engine in ("torch", "auto")]
    assert told == {name: [] for name in ["imports", *rounds]}
