"""Real bitstreams for the codecs of `rdgap.ntc`.

A stream is decoded to the same latents on every machine: see `Coder` for how.
"""

from .bitstream import BitstreamError as BitstreamError
from .bitstream import Header as Header
from .bitstream import unpack as unpack
from .coder import Coder as Coder
from .coder import decode as decode
from .coder import encode as encode
