#!/usr/bin/env python3
"""A second reader of archives, written from docs/ARCHIVE.md: checks everything that it reads, and
prints the records of a timeline's history, a line each: LSN, time in microseconds, SHA-256.

    reader.py DIRECTORY [--timeline N] [--key HEX] [--pages FILE]

With --pages, writes the newest backup of the timeline to FILE, and prints the records from where it
needs them.

Compression is libzstd's, and encryption libcrypto's, both by ctypes: Python has neither.
"""

import argparse
import ctypes
import ctypes.util
import hashlib
import hmac
import json
import os
import struct
import sys


def library(*names):
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    sys.exit("SKIPPED: none of these libraries is there: " + " ".join(names))


def decompress(data, size):
    zstd = library("libzstd.so.1", "libzstd.dylib")
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    zstd.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    out = ctypes.create_string_buffer(max(size, 1))
    n = zstd.ZSTD_decompress(out, size, data, len(data))
    assert n == size, f"decompressed {n} bytes of {size}"
    return out.raw[:size]


def decrypt(key, nonce, about, data):
    """AES-256-GCM; the last 16 bytes of `data` are the tag."""
    crypto = library("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.dylib")
    for f in ("EVP_CIPHER_CTX_new", "EVP_aes_256_gcm"):
        getattr(crypto, f).restype = ctypes.c_void_p
    pointer = ctypes.c_void_p
    ctx, cipher = pointer(crypto.EVP_CIPHER_CTX_new()), pointer(crypto.EVP_aes_256_gcm())
    text, tag = data[:-16], data[-16:]
    out, n = ctypes.create_string_buffer(len(text) + 16), ctypes.c_int()
    assert crypto.EVP_DecryptInit_ex(ctx, cipher, None, key, nonce) == 1
    assert crypto.EVP_DecryptUpdate(ctx, None, ctypes.byref(n), about, len(about)) == 1
    assert crypto.EVP_DecryptUpdate(ctx, out, ctypes.byref(n), text, len(text)) == 1
    assert crypto.EVP_CIPHER_CTX_ctrl(ctx, 0x11, 16, tag) == 1
    assert crypto.EVP_DecryptFinal_ex(ctx, ctypes.byref(ctypes.create_string_buffer(16)), ctypes.byref(n)) == 1, "the tag is wrong"
    crypto.EVP_CIPHER_CTX_free(ctx)
    return out.raw[: len(text)]


def object_key(master, salt):
    extracted = hmac.new(salt, master, hashlib.sha256).digest()
    return hmac.new(extracted, b"foreword-archive object" + b"\x01", hashlib.sha256).digest()


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Archive:
    def __init__(self, root, master):
        self.root, self.master = root, master
        closed = 0
        while os.path.exists(self.path(f"closed/{closed:020}")):
            closed += 1
        # What is closed may be gone: then what is known begins with the first summary behind it.
        self.timelines, previous, number = None if closed else {}, None, max(1024 * closed, 1) - 1
        first = number + 1
        while os.path.exists(self.path(f"manifest/{number + 1:020}")):
            number += 1
            data = self.read(f"manifest/{number:020}")
            line, end, rest = data.partition(b"\n")
            assert end and rest == sha(line).encode() + b"\n", f"manifest {number}: its hash"
            manifest = json.loads(line)
            assert manifest["format"] == 1 and manifest["number"] == number
            follows = manifest.get("previous") == previous or closed and number == first
            assert follows, f"manifest {number} does not follow"
            previous, self.id = sha(data), manifest["archive"]
            for change in manifest["changes"] if self.timelines is not None else []:
                ((kind, what),) = change.items()
                self.apply(kind, what)
            if "state" in manifest:
                assert manifest["summary"] == number
                lists = {"gaps": [], "indexes": [], "chunks": [], "backups": []}
                there = {int(k): {**lists, **v} for k, v in manifest["state"]["timelines"].items()}
                if self.timelines is None:
                    self.timelines = there
                assert there.keys() == self.timelines.keys(), f"the summary in {number}"
                for k, v in there.items():
                    assert v["last"] == self.timelines[k]["last"] and v.get("chunks", []) == self.timelines[k]["chunks"]
        newest = max(int(name) for name in os.listdir(os.path.join(root, "manifest")) if name.isdigit())
        assert newest == number, f"manifest {number + 1} is not there, and {newest} is"

    def path(self, name):
        return os.path.join(self.root, *name.split("/"))

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def apply(self, kind, what):
        if kind in ("begin", "retire"):
            return
        if kind == "timeline":
            what = {"gaps": [], "indexes": [], "chunks": [], "backups": [], **what}
            self.timelines[what["id"]] = what
            return
        timeline = self.timelines[what["timeline"]]
        if kind == "add":
            chunk = what["chunk"]
            timeline["chunks"] = [c for c in timeline["chunks"] if c["first"] < chunk["first"]] + [chunk]
            timeline["last"] = chunk["last"]
            if chunk["whole"]:
                timeline["whole"] = chunk["last"]
        elif kind == "gap":
            timeline["gaps"].append(what["gap"])
            timeline["last"] = timeline["whole"] = what["gap"]["last"]
        elif kind == "generation":
            timeline["generation"] = what["generation"]
        elif kind == "index":
            timeline["chunks"] = [c for c in timeline["chunks"] if c["first"] > what["index"]["last"]]
            timeline["indexes"].append(what["index"])
        elif kind == "backup":
            timeline["backups"].append(what["backup"])
        elif kind == "remove_backup":
            timeline["backups"] = [b for b in timeline["backups"] if b["list"]["name"] != what["name"]]
        elif kind == "expire":
            for of in ("chunks", "indexes", "gaps"):
                timeline[of] = [x for x in timeline[of] if x["last"] >= what["before"]]
        elif kind == "drop":
            del self.timelines[what["timeline"]]
        else:
            sys.exit(f"an unknown change: {kind}")

    def history(self, timeline):
        """Chunks, oldest first, and up to which LSN each counts."""
        path, id, to = [], timeline, None
        while id in self.timelines:
            t = self.timelines[id]
            last = t["last"] if to is None else to
            path.append((id, t["first"], last))
            parent = t.get("parent")
            if parent is None:
                break
            id, to = parent["timeline"], min(parent["last"], last, t["first"] - 1)
        for id, first, last in reversed(path):
            t = self.timelines[id]
            for index in t["indexes"]:
                yield from ((id, c, first, last) for c in self.list(index))
            yield from ((id, c, first, last) for c in t["chunks"])

    def list(self, index):
        data = self.read(index["name"])
        assert sha(data) == index["sha256"], index["name"]
        return json.loads(data)

    def pages(self, backup, out):
        """Writes the copy: its pieces, numbered from 1 on, one behind the other."""
        size, following = 0, 1
        for chunk in self.list(backup["list"]):
            for number, _, piece in self.chunk(0, chunk):
                assert number == following, backup["list"]["name"]
                size, following = size + out.write(piece), following + 1
        assert size == backup["bytes"] and following == backup["list"]["last"] + 1, backup["list"]["name"]

    def records(self, timeline):
        for id, chunk, first, last in self.history(timeline):
            if chunk["first"] > last or chunk["last"] < first:
                continue
            for lsn, micros, data in self.chunk(id, chunk):
                if first <= lsn <= last:
                    yield lsn, micros, data

    def chunk(self, timeline, chunk):
        data, name = self.read(chunk["name"]), chunk["name"]
        assert len(data) == chunk["bytes"] and sha(data) == chunk["sha256"], name
        magic, archive, of, encrypted, first, salt, key_id = struct.unpack("<8s16sIIQ16s8s", data[:64])
        assert magic == b"FWARCH1\n" and archive.hex() == self.id and of == timeline and first == chunk["first"], name
        assert bool(encrypted) == ("key" in chunk), name
        if encrypted:
            assert key_id.hex() == chunk["key"] == sha(self.master)[:16], "another key"
            key = object_key(self.master, salt)
        blocks, zero, end = struct.unpack("<II8s", data[-16:])
        assert end == b"FWAREND\n" and zero == 0 and blocks == chunk["blocks"], name
        table = data[len(data) - 16 - 48 * blocks : len(data) - 16]
        assert sha(table) == chunk["table"], name
        at, lsn = 64, first
        for number in range(blocks):
            stored, raw, records, zero, latest, digest = struct.unpack("<IIIIQ24s", table[48 * number :][:48])
            block = data[at : at + stored]
            at += stored
            assert hashlib.sha256(block).digest()[:24] == digest and zero == 0, name
            if encrypted:
                block = decrypt(key, struct.pack("<I", number) + bytes(8), data[:64], block)
            block, pos, seen = decompress(block, raw), 0, 0
            for _ in range(records):
                micros, length = struct.unpack("<QI", block[pos : pos + 12])
                seen = max(seen, micros)
                yield lsn, micros, block[pos + 12 : pos + 12 + length]
                pos, lsn = pos + 12 + length, lsn + 1
            assert pos == len(block) and seen == latest, name
        assert lsn == chunk["last"] + 1 and at == len(data) - 16 - 48 * blocks, name


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory")
    arguments.add_argument("--timeline", type=int)
    arguments.add_argument("--key", default="")
    arguments.add_argument("--pages")
    arguments = arguments.parse_args()
    archive = Archive(arguments.directory, bytes.fromhex(arguments.key))
    timeline, start = arguments.timeline or max(archive.timelines), 0
    if arguments.pages:
        backup = max(archive.timelines[timeline]["backups"], key=lambda backup: backup["consistent"])
        with open(arguments.pages, "wb") as file:
            archive.pages(backup, file)
        start = backup["log_start"]
    for lsn, micros, data in (record for record in archive.records(timeline) if record[0] >= start):
        print(lsn, micros, sha(data))


if __name__ == "__main__":
    main()
