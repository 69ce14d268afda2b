"""Reads what wandb wrote offline: a file of records in LevelDB's log format, each a protocol buffer."""

import json
import struct
import time

BLOCK, HEADER, FILE_HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path):
    """The records of a .wandb file, in order."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, whole = FILE_HEADER, b""
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[position:position + HEADER])
        part = data[position + HEADER:position + HEADER + size]
        position += HEADER + size
        whole = part if kind in (FULL, FIRST) else whole + part
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(whole)


def finished_run(path):
    """`read_run` once the run has been written to its end: wandb's own process may still be at it when `finish` has returned."""
    for _ in range(50):
        found = read_run(path)
        if "id" in found and "exit_code" in found:
            break
        time.sleep(0.1)
    return found


def read_run(path):
    """`{"id", "project", "config", "history": [{name: value}], "exit_code"}` of one offline folder's file."""
    found = {"history": []}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "project": record.run.project, "name": record.run.display_name,
                      "config": {update.key: json.loads(update.value_json) for update in record.run.config.update}}
        elif kind == "history":
            found["history"].append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
        elif kind == "exit":
            found["exit_code"] = record.exit.exit_code
    return found
