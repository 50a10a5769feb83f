"""A Dask scheduler as an executor, whose workers need neither the files nor the plug-ins of this machine.

What a call works on travels with it: the files that its arguments name, the torch modules in them, and the code of
modules that lie outside the installed packages. Files and torch modules go as parts of their own, named by a hash of
their content, and reach each worker once; Dask computes a part again where the worker that had it is lost.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import sysconfig
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch

from ._files import replacing
from .parallel import MAX_PENDING

try:
    import cloudpickle
    from distributed import Client, KilledWorker, get_worker
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("a cluster needs Dask: pip install 'rdgap[cluster]'", name=error.name) from error

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_MOST_MODULES = 32  # that a worker keeps ready; what it needs after that is unpickled again
_SECONDS_TO_CONNECT = 10
_SECONDS_BETWEEN_COUNTS = 10.0  # of workers, which may come and go


@contextmanager
def connected(address: str) -> Iterator[ClusterExecutor]:
    """Yield an executor on the workers of the Dask scheduler at `address`, such as tcp://HOST:PORT.

    Raises:
        OSError: If no scheduler answers.
        RuntimeError: If the cluster gives the work up.
    """
    try:
        with Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False) as client:
            if not _places(client):
                print(f"{address} has no workers yet; waiting for them", file=sys.stderr, flush=True)
            with ClusterExecutor(client) as executor:
                yield executor
    except (KilledWorker, CancelledError) as error:
        raise RuntimeError(f"the cluster {address} gave the work up: {error or type(error).__name__}") from error


def _places(client: Client) -> list[str]:
    """Return the address of each worker, once for each of its threads."""
    by_worker: Any = client.nthreads()  # Dask's types say that it has to be awaited
    return [address for address, threads in by_worker.items() for _ in range(threads)]


class ClusterExecutor(Executor):
    """Runs calls on the workers of a Dask client.

    Arguments are pickled, apart from paths of files, which become paths of copies on the worker, and torch modules;
    later changes of either are not seen. Every worker must have the same `rdgap`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inner = client.get_executor(pure=False)
        self._parts: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._needed: WeakKeyDictionary[Future[Any], list[Any]] = WeakKeyDictionary()
        self._modules: dict[int, tuple[torch.nn.Module, bytes, dict[str, tuple[str, Any]]]] = {}
        self._own_code = _OwnCode()
        self._counted_at, self._known_places, self._number = -float("inf"), [""], 0

    def submit(
        self, fn: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        """Send a call to a worker; see the class."""
        self._own_code.register()
        packed = io.BytesIO()
        places = self._places()
        self._number += 1
        # Until Dask knows how long calls take, it runs them where their parts are: these go to places in turn.
        packer = _Packer(packed, self, places[self._number % len(places)])
        packer.dump((fn, args, kwargs))
        needed = list(packer.parts.values())
        future = self._inner.submit(_run, packed.getvalue(), _code_hash(), list(packer.parts), *needed)
        self._needed[future] = needed  # Dask forgets a part when nobody holds it
        return future

    @property
    def max_pending(self) -> int:
        """How many calls keep all workers busy."""
        return max(MAX_PENDING, 2 * len(self._places()))

    def _places(self) -> list[str]:
        if time.monotonic() > self._counted_at + _SECONDS_BETWEEN_COUNTS:
            self._known_places, self._counted_at = _places(self._client) or [""], time.monotonic()
        return self._known_places

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Free what was held for the calls; see `Executor`."""
        self._inner.shutdown(wait=wait)
        self._modules.clear()
        self._own_code.unregister()

    def file_part(self, path: Path, place: str) -> tuple[str, Any]:
        """Return the name and the Dask future of the content of a file on the worker of an address."""
        return self._part(path.read_bytes(), place)

    def module_part(self, module: torch.nn.Module, place: str) -> tuple[str, Any]:
        """Return the name and the Dask future of a torch module there, kept until the executor is shut down."""
        if id(module) not in self._modules:
            self._modules[id(module)] = (module, cloudpickle.dumps(module), {})
        _, content, parts = self._modules[id(module)]
        if place not in parts:
            parts[place] = self._part(content, place)
        return parts[place]

    def _part(self, content: bytes, place: str) -> tuple[str, Any]:
        name = hashlib.sha256(content).hexdigest()
        part = self._parts.get(name + place)
        if part is None:
            somewhere = {"workers": [place], "allow_other_workers": True} if place else {}
            with warnings.catch_warnings():  # Dask advises `scatter`, whose data are lost with their worker
                warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
                part = self._client.submit(_content, content, key=f"rdgap-part-{name}-{place}", **somewhere)
            self._parts[name + place] = part
        return name, part


class _Packer(cloudpickle.Pickler):
    """Pickles a call, and collects the parts that are left out of it by name."""

    def __init__(self, file: io.BytesIO, executor: ClusterExecutor, place: str) -> None:
        super().__init__(file)
        self.parts: dict[str, Any] = {}
        self._executor, self._place = executor, place

    def persistent_id(self, obj: object) -> tuple[str, ...] | None:
        if isinstance(obj, Path) and obj.is_file():
            return self._left_out("file", self._executor.file_part(obj, self._place), obj.name)
        if isinstance(obj, torch.nn.Module):
            return self._left_out("module", self._executor.module_part(obj, self._place))
        return None

    def _left_out(self, kind: str, named: tuple[str, Any], *more: str) -> tuple[str, ...]:
        name, self.parts[name] = named
        return kind, name, *more


class _OwnCode:
    """Modules of the user's own, whose code is sent: those outside the installed packages, which workers have."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._registered: list[ModuleType] = []

    def register(self) -> None:
        names = {name for name in list(sys.modules) if "." not in name} - self._seen
        self._seen |= names
        for name in names - {"__main__", "__mp_main__", "rdgap"}:
            module = sys.modules.get(name)
            if isinstance(module, ModuleType) and _is_own(module):
                cloudpickle.register_pickle_by_value(module)
                self._registered.append(module)

    def unregister(self) -> None:
        while self._registered:
            cloudpickle.unregister_pickle_by_value(self._registered.pop())


def _is_own(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    places = [Path(place).resolve() for place in ([file] if file else getattr(module, "__path__", []))]
    standard = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    return bool(places) and not any(
        {"site-packages", "dist-packages"} & set(place.parts) or any(map(place.is_relative_to, standard))
        for place in places
    )


@cache
def _code_hash() -> str:
    """Return a hash of the code of this package, so that no worker computes with another version of it."""
    folder, digest = Path(__file__).resolve().parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()} ".encode() + path.read_bytes())
    return digest.hexdigest()


# ---- on the worker


def _content(content: bytes) -> bytes:
    return content


def _run(packed: bytes, code_hash: str, names: list[str], *contents: bytes) -> Any:
    """Make a call where its parts have arrived."""
    if code_hash != _code_hash():
        import socket

        raise RuntimeError(
            f"workers must have the same rdgap as this machine, the one on {socket.gethostname()} differs."
        )
    fn, args, kwargs = _Unpacker(packed, dict(zip(names, contents, strict=True))).load()
    return fn(*args, **kwargs)


class _Unpacker(pickle.Unpickler):
    def __init__(self, packed: bytes, contents: Mapping[str, bytes]) -> None:
        super().__init__(io.BytesIO(packed))
        self._contents = contents

    def persistent_load(self, pid: tuple[str, ...]) -> object:
        kind, name, *rest = pid
        if kind == "file":
            return _copy(name, rest[0], self._contents[name])
        return _MODULES.get(name, self._contents[name])


def _copy(name: str, file_name: str, content: bytes) -> Path:
    """Return a file of this content, in the worker's own folder, which Dask removes with it."""
    path = Path(get_worker().local_directory) / "rdgap" / name / file_name
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return path


class _Modules:
    """The torch modules that this process has had from elsewhere, by the hash of their content."""

    def __init__(self) -> None:
        self._lock, self._by_name = threading.Lock(), OrderedDict[str, torch.nn.Module]()

    def get(self, name: str, content: bytes) -> torch.nn.Module:
        with self._lock:
            if name not in self._by_name:
                self._by_name[name] = pickle.loads(content)
                if len(self._by_name) > _MOST_MODULES:
                    self._by_name.popitem(last=False)
            self._by_name.move_to_end(name)
            return self._by_name[name]


_MODULES = _Modules()
