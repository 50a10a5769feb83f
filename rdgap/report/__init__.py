"""One page about codecs on one's images: what the other commands measure, side by side, to be read offline."""
