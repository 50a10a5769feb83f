"""The data sets of the literature: where they are, what is in them, how one knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file to download.

    Attributes:
        url: Where it is.
        algorithm: Of its checksum, "sha256" or "md5"; empty if none was ever published.
        checksum: In hexadecimal.
    """

    url: str
    algorithm: str = ""
    checksum: str = ""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set of images.

    Attributes:
        what: It, for people, with its licence.
        files: The images themselves, or one ZIP archive of them.
        images: How many images it has.
        suffix: Of its images' names.
        member: Folder inside the archive that holds the images; empty where the files are the images.
        size: Width and height of every image, where all are alike.
        pixels_sha256: SHA-256 of each image's RGB pixels by name, where known: another file of these pixels is as good.
    """

    what: str
    files: tuple[RemoteFile, ...]
    images: int
    suffix: str = ".png"
    member: str = ""
    size: tuple[int, int] | None = None
    pixels_sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_archive(self) -> bool:
        """Whether the images come in an archive."""
        return bool(self.member)


KODAK_PIXELS_SHA256 = {
    "kodim01": "a00210743353594464ac67e680a41710f484444ca5f9dfddeb570de25c428273",
    "kodim02": "ae5a495df4ec40e0941265440ccf98973915b4190ab803e37a23ca93dd43a07e",
    "kodim03": "234e61f585503f2a44400f5561131e8a512ef2c15328cd83d5cdbf10e2616cf2",
    "kodim04": "e88e788fca00e6c723bb66ff45edb8cb56091ee284dcb73e3909834f2c96eeb6",
    "kodim05": "ed3d1ee770909d3b27903b52ce19ee59a9bf24621a7bf1fb57b90677da880cb6",
    "kodim06": "7f45158999fa297d1cfbd292b3e2f3f5b27770701c3473155c211c3f512cc97f",
    "kodim07": "4e3664bf6fe865b49f15f7b554efa7dbecaf73ae0e8699f2e307bf07849f1264",
    "kodim08": "889c3740e4ed54ca53d11ae735a44d15fa24fe312b3bd1609a80618a4092c208",
    "kodim09": "f8453140e63a42301a6dbebb849a3cc40d34e4e59580eb1f372f7f5460df0dbe",
    "kodim10": "fabe11b5c4f028394e093a5b5907e5fabc8072da0d5334fb3a38547a7e1be842",
    "kodim11": "ab4dd9bf8431e717d33892b3ba03c63bfea3c7fa72c2610010de7df3c194c075",
    "kodim12": "f412db2168e599949aac26bd3264f111b23a684f30a21cfd320e9e95bc69bbae",
    "kodim13": "875703d56fb9396f478b5d7d3b18e2b77c17147a685c6dc2567e1c574aaf01e3",
    "kodim14": "2bd5029ee75ac1697542e5b05624e8afe186e3250abd7513d6a806b52084c2f0",
    "kodim15": "b5353e7511277009922ecbdebfc6418fec53aa1b2a08d44fc957a7540825697b",
    "kodim16": "ed21745fd32fce95cc2c6af7fc52b1b15e590c7a14ab18ab34bd65ecaf955ac7",
    "kodim17": "566bc866664e9b06dc86e2654051b454844efe17322dbf7e24156d8243f1943e",
    "kodim18": "3475af71066f3ca8206eb12cfc989ebe9c6e44820a96604e88ae018606e1f7bd",
    "kodim19": "7956408ef24222d37ac53f579bd24d5b2c3557b16c657e8b71c1b6ae9f18de1b",
    "kodim20": "666ce8f2db5566a123bb081e70618f6f4c4253df960f3b41bb9dcc3dd134f3cf",
    "kodim21": "2d6902daf7c4486b7c8c04d834091841a2b38c8f0c81cd7a963a6510b34a2a6a",
    "kodim22": "f430842120c108b67725ada96b8b7b2a914f6a0915eacd5595064c6c1a5d70a0",
    "kodim23": "81992a83592267e69125666f3e3e04c1819529b4c4c1e55fde0a6a741bac4219",
    "kodim24": "e3e3ccc3e795b82a3da66934409dfe98ce0f5aadc6d7767543c506453599bb98",
}
"""SHA-256 of the RGB pixels, row by row, of each Kodak image."""

_CLIC = "https://data.vision.ee.ethz.ch/cvl/clic"
_COCO = "http://images.cocodataset.org/zips"

DATASETS: dict[str, Dataset] = {
    "kodak": Dataset(
        what="Kodak: 24 photographs of 768 x 512 or 512 x 768, released for unrestricted use; 15 MB",
        files=tuple(RemoteFile(url=f"https://r0k.us/graphics/kodak/kodak/{name}.png") for name in KODAK_PIXELS_SHA256),
        images=24,
        pixels_sha256=KODAK_PIXELS_SHA256,
    ),
    "tecnick": Dataset(
        what="Tecnick TESTIMAGES: 100 photographs of 1200 x 1200, CC BY-NC-SA; 0.5 GB, checksum not published",
        files=(RemoteFile(url="https://master.dl.sourceforge.net/project/testimages/OLD/OLD_SAMPLING/testimages.zip"),),
        images=100,
        member="RGB/RGB_OR_1200x1200",
        size=(1200, 1200),
    ),
    "clic2018-professional-valid": Dataset(
        what="CLIC 2018 professional validation: 41 photographs, Unsplash licence; 0.13 GB, checksum not published",
        files=(RemoteFile(url=f"{_CLIC}/professional_valid.zip"),),
        images=41,
        member="valid",
    ),
    "clic2020-professional-valid": Dataset(
        what="CLIC 2020 professional validation: 41 photographs, Unsplash licence; 0.13 GB",
        files=(
            RemoteFile(
                url=f"{_CLIC}/professional_valid_2020.zip",
                algorithm="md5",
                checksum="7111ee240435911db04dbc5f40d50272",
            ),
        ),
        images=41,
        member="valid",
    ),
    "coco2017-train": Dataset(
        what="COCO 2017, training: 118287 JPEG photographs under licences of Flickr; 19 GB",
        files=(
            RemoteFile(
                url=f"{_COCO}/train2017.zip",
                algorithm="sha256",
                checksum="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            ),
        ),
        images=118287,
        suffix=".jpg",
        member="train2017",
    ),
    "coco2017-val": Dataset(
        what="COCO 2017, validation: 5000 JPEG photographs under licences of Flickr; 0.8 GB",
        files=(
            RemoteFile(
                url=f"{_COCO}/val2017.zip",
                algorithm="sha256",
                checksum="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ),
        ),
        images=5000,
        suffix=".jpg",
        member="val2017",
    ),
}
"""Every data set by name."""
