"""The store: where finished steps live, content-addressed, shared by all compositions, processes and hosts.

    <store>/<step>/<key>/                        a finished step's files, its step.json and its stat.json
    <store>/tmp/<key>.<host>.<process>.<random>/ a step at work, or one on its way out
    <store>/downloads/                           files by SHA-256 (linked into fetch steps), and parts to go on with
    <store>/caches/                              what toolkits keep to build faster (TensorRT's times of kernels)
    <store>/users/                               which output directories need which steps
    <store>/locks/, <store>/runs/                who is at work

What has to hold is built on rename(2) of a directory within one file system alone: it happens whole or not at all,
and onto a directory that is not empty it fails. A step is written under a name that no other process on any host has,
flushed to disk, and renamed to its final name: a directory under <step>/ is always whole. Of several that made the
same step the first publishes, the others find the name taken and use what is there. A step that turns out damaged is
renamed away first, never emptied in place. NFS keeps these promises between hosts. Files are read-only, since engine
directories link to them.

flock(2) only saves work and waiting: a lock per key makes each step once, and one for the whole store, shared by
everyone at work, keeps `gc` out. Linux carries flock over NFS to the server (not with `nolock` or `local_lock`).
Where it holds for one host alone, two hosts may make a step twice; and `gc` goes by the records in runs/, and leaves
alone for a day what another host may be at work on.

A stored file is trusted as long as its size, modification time and inode are those of stat.json (`trust`). A step
that reads another's files hashes them first; `python -m whisper_factory.store verify` hashes everything.
"""

from __future__ import annotations

from whisper_factory.store.files import FULL, fault, flush, link
from whisper_factory.store.steps import RECORD, Finished, Store, default_path

__all__ = ["FULL", "RECORD", "Finished", "Store", "default_path", "fault", "flush", "link"]
