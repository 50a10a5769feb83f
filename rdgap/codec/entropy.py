"""Coding integers by tables: constriction's range coder, with an escape from every table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue]
from numpy.typing import NDArray

from .bitstream import BitstreamError
from .tables import PROBABILITY_BITS, Tables

Integers = NDArray[np.int64]

LARGEST_SYMBOL = 2**30
"""Magnitude up to which symbols are coded."""

_WORD_BYTES = 4
_CHUNK_BITS = 16
_NUMBER_OF_LENGTHS = 2 + (2 * LARGEST_SYMBOL).bit_length()
_LENGTHS = stream.model.Uniform(_NUMBER_OF_LENGTHS)
_CHUNKS = [stream.model.Uniform(2**bits) for bits in range(1, _CHUNK_BITS + 1)]


class SymbolWriter:
    """Writes symbols into a payload."""

    def __init__(self) -> None:
        self._coder = stream.queue.RangeEncoder()

    def write(self, symbols: Integers, table: Integers, tables: Tables) -> None:
        """Append symbols, each by the table of that number; both (number,).

        Symbols are sorted by table, so that one call codes a long run by one model. Those outside their table follow
        in an Elias gamma code, lengths first.
        """
        lowest, highest = tables.lowest[table], tables.highest[table]
        entries, outside = _entries(symbols, lowest, highest)
        order, runs = _runs(table)
        sorted_entries = entries[order].astype(np.int32)
        for number, run in runs:
            self._coder.encode(sorted_entries[run], tables.models[number])
        escaped = order[outside[order]]
        if len(escaped):
            self._write_escaped(symbols[escaped], lowest[escaped], highest[escaped])

    def _write_escaped(self, symbols: Integers, lowest: Integers, highest: Integers) -> None:
        excess = _excess(symbols, lowest, highest)
        lengths = _bit_lengths(excess)
        self._coder.encode(lengths.astype(np.int32), _LENGTHS)
        for places, shift, bits in _chunks(lengths):
            self._coder.encode((excess[places] >> shift & (2**bits - 1)).astype(np.int32), _CHUNKS[bits - 1])

    def payload(self) -> bytes:
        """Return what was written."""
        return self._coder.get_compressed().astype("<u4").tobytes()


class SymbolReader:
    """Reads symbols out of a payload, in the order in which they were written.

    A payload that was not written so yields other symbols or, where the range coder notices, a BitstreamError.
    """

    def __init__(self, payload: bytes) -> None:
        words = np.frombuffer(payload + bytes(-len(payload) % _WORD_BYTES), "<u4")
        self._coder = stream.queue.RangeDecoder(words.astype(np.uint32))

    def read(self, table: Integers, tables: Tables) -> Integers:
        """Return the next symbols, each by the table of that number, (number,)."""
        entries = np.empty(len(table), np.int64)
        order, runs = _runs(table)
        for number, run in runs:
            entries[order[run]] = self._decode(tables.models[number], run.stop - run.start)
        lowest, highest = tables.lowest[table], tables.highest[table]
        symbols = lowest + entries
        outside = order[symbols[order] > highest[order]]
        if len(outside):
            symbols[outside] = self._read_escaped(lowest[outside], highest[outside])
        return symbols

    def _read_escaped(self, lowest: Integers, highest: Integers) -> Integers:
        lengths = self._decode(_LENGTHS, len(lowest))
        excess = np.left_shift(1, np.maximum(lengths - 1, 0))
        for places, shift, bits in _chunks(lengths):
            excess[places] |= self._decode(_CHUNKS[bits - 1], len(places)) << shift
        return np.where(excess % 2 == 1, highest + (excess + 1) // 2, lowest - excess // 2)

    def _decode(self, model: Any, number: int) -> Integers:
        try:
            return self._coder.decode(model, number).astype(np.int64)
        except AssertionError as error:
            raise BitstreamError("the payload is not one that this model writes.") from error


def bits_of(symbols: Integers, table: Integers, tables: Tables) -> NDArray[np.float64]:
    """Return how many bits each of the symbols takes by the table of that number, an escape included; all (number,)."""
    lowest, highest = tables.lowest[table], tables.highest[table]
    entries, outside = _entries(symbols, lowest, highest)
    counts = np.array([tables.counts[number][entry] for number, entry in zip(table, entries, strict=True)], np.float64)
    bits = PROBABILITY_BITS - np.log2(counts)
    lengths = _bit_lengths(_excess(symbols[outside], lowest[outside], highest[outside])).astype(np.float64)
    bits[outside] += math.log2(_NUMBER_OF_LENGTHS) + (lengths - 1)
    return bits


def _entries(symbols: Integers, lowest: Integers, highest: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """Return the places of symbols in their tables, the escape's for those outside, and which are outside."""
    outside = (symbols < lowest) | (symbols > highest)
    return np.where(outside, highest + 1, symbols) - lowest, outside


def _excess(symbols: Integers, lowest: Integers, highest: Integers) -> Integers:
    """Return 1, 2, ... for symbols outside of `lowest` ... `highest`, outwards and in turn."""
    return np.where(symbols > highest, 2 * (symbols - highest) - 1, 2 * (lowest - symbols))


def _runs(table: Integers) -> tuple[Integers, Iterator[tuple[int, slice]]]:
    """Return the order that sorts symbols by table, and each table in use with its run of the sorted symbols."""
    order = np.argsort(table.astype(np.uint16), kind="stable")
    ends = np.cumsum(np.bincount(table))
    starts = np.concatenate([[0], ends[:-1]])
    runs = ((int(number), slice(int(starts[number]), int(ends[number]))) for number in np.flatnonzero(ends > starts))
    return order, runs


def _bit_lengths(positive: Integers) -> Integers:
    return np.frexp(positive.astype(np.float64))[1].astype(np.int64)


def _chunks(lengths: Integers) -> Iterator[tuple[Integers, int, int]]:
    """Yield which numbers have digits below their leading one at a shift, the shift, and how many digits."""
    for length in np.unique(lengths[lengths > 1]):
        places = np.flatnonzero(lengths == length)
        for shift in range(0, int(length) - 1, _CHUNK_BITS):
            yield places, shift, min(_CHUNK_BITS, int(length) - 1 - shift)
