"""Data sets of the literature, by local folder or by download; `python -m rdgap.datasets`."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from PIL import Image

from ..images import SUFFIXES, image_paths, read_rgb8
from ..parallel import map_images
from .catalog import DATASETS as DATASETS
from .catalog import Dataset as Dataset
from .catalog import RemoteFile as RemoteFile
from .transfer import download as download


def dataset_called(name: str) -> Dataset:
    """Return the data set of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in DATASETS:
        raise ValueError(f"The data sets are {', '.join(DATASETS)}, got {name!r}.")
    return DATASETS[name]


def dataset_paths(name: str, folder: Path) -> list[Path]:
    """Return the images of a data set in a local folder, after making sure that they are what they should be.

    Kodak is known by its pixels, Tecnick by number and size of its images, CLIC and COCO by the number alone.

    Args:
        name: One of `DATASETS`.
        folder: Folder of its images.

    Raises:
        ValueError: If there is no such data set, or the folder holds anything else.
        FileNotFoundError: If there is no such folder.
    """
    dataset = dataset_called(name)
    if not folder.is_dir():
        raise FileNotFoundError(f"No folder of {name} at {folder}; `python -m rdgap.datasets {name}` downloads it.")
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    if len(paths) != dataset.images:
        raise ValueError(f"{folder}: {name} has {dataset.images} images, got {len(paths)}.")
    if dataset.pixels_sha256 or dataset.size:
        for path in map_images(Path, sorted(paths), description=f"checking {name}"):
            check_image(name, path)
    return image_paths([folder])


def check_image(name: str, path: Path) -> None:
    """Raise `ValueError` unless a file is the image of the data set that it is named as, as far as that is known."""
    dataset = dataset_called(name)
    if dataset.pixels_sha256:
        expected = dataset.pixels_sha256.get(path.stem)
        if expected is None:
            raise ValueError(f"{path}: {name} has no image of this name.")
        if hashlib.sha256(read_rgb8(path).tobytes()).hexdigest() != expected:
            raise ValueError(f"{path}: the pixels must be those of {name}, got others.")
    elif dataset.size:
        with Image.open(path) as image:
            if image.size != dataset.size:
                found = " x ".join(map(str, image.size))
                raise ValueError(f"{path}: images of {name} are {' x '.join(map(str, dataset.size))}, got {found}.")


def fetch(name: str, out: Path, *, mirror: str | None = None, keep_archive: bool = False) -> Path:
    """Download a data set into the folder `out/name`, unless it is there; return that folder.

    An interrupted run is taken up where it stopped.

    Args:
        name: One of `DATASETS`.
        out: Folder of data sets.
        mirror: Address of a folder to take the files from instead.
        keep_archive: Keep the downloaded archive beside the folder.

    Raises:
        ValueError: If there is no such data set, a checksum is wrong, or the folder holds something else.
        OSError: If a server refuses or cannot be reached.
    """
    dataset, folder = dataset_called(name), out / name
    files = dataset.files
    if mirror:
        files = tuple(
            RemoteFile(url=f"{mirror.rstrip('/')}/{file.name}", algorithm=file.algorithm, checksum=file.checksum)
            for file in files
        )
    if not dataset.is_archive:
        for file in files:
            target = folder / file.name
            download(file, target)
            try:
                check_image(name, target)
            except ValueError as error:
                target.unlink()
                raise ValueError(f"{file.url}: {error} The file is removed.") from error
    elif not folder.exists():
        archive = out / files[0].name
        download(files[0], archive)
        _unpack(archive, dataset, folder)
        if not keep_archive:
            archive.unlink()
    dataset_paths(name, folder)
    return folder


def _unpack(archive: Path, dataset: Dataset, folder: Path) -> None:
    """Unpack the images of an archive, whatever folders they lie in, into a folder that appears when it is whole."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if _is_image(member, dataset)]
            if len(members) != dataset.images:
                raise ValueError(
                    f"{archive}: it must hold {dataset.images} {dataset.suffix} images in {dataset.member}, "
                    f"got {len(members)}."
                )
            for member in map_images(lambda member: member, members, description=f"unpacking {archive.name}"):
                target = temporary / PurePosixPath(member.filename).name
                with content.open(member) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
        temporary.chmod(0o755)
        temporary.replace(folder)
    except zipfile.BadZipFile as error:
        archive.unlink()
        raise ValueError(f"{archive}: not a sound ZIP archive ({error}); it is removed.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_image(member: zipfile.ZipInfo, dataset: Dataset) -> bool:
    path = PurePosixPath(member.filename)
    inside = f"/{path.parent}/".endswith(f"/{dataset.member}/")
    return inside and path.suffix.lower() == dataset.suffix and not path.name.startswith(".")
