"""The commands of `hwnas devices`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any

import typer

from hwnas.devices import Device, open_runner
from hwnas.devices.catalog import catalog
from hwnas.devices.compile import Compiler
from hwnas.devices.health import Health, check
from hwnas.devices.registry import BUILT_IN, Entry, Registry, registry_path
from hwnas.devices.serving import serve_command, serve_instructions
from hwnas.devices.tracker import tracker_summary
from hwnas.engine.cli.failures import told
from hwnas.engine.cli.options import Json, answer
from hwnas.engine.cli.terminal import Terminal

app = typer.Typer(no_args_is_help=True, help="Name devices and probe them; lend boards to others.")

Name = Annotated[str, typer.Argument(help="A name from `hwnas devices list`", show_default=False)]
Key = Annotated[str, typer.Option("--key", help="What equal boards share")]
Host = Annotated[str, typer.Option("--host", help="The address to listen at")]
Tracker = Annotated[str | None, typer.Option("--tracker", help="HOST:PORT of the tracker that lends the board")]


@app.command("list", epilog="Example: hwnas devices list --json")
@told
def list_(
    targets: Annotated[bool, typer.Option("--targets", help="List the catalogue of targets instead")] = False,
    as_json: Json = False,
) -> None:
    """List the devices that every machine has and those that were added, or the targets one can be added with."""
    if targets:
        found = catalog().values()
        answer(as_json, {each.name: each.description for each in found})
        return
    registry = Registry(registry_path())
    devices = [registry.find(name) for name in registry.names()]
    if as_json:
        answer(True, {"devices": [{**device.to_json(), "built_in": device.name in BUILT_IN} for device in devices]})
        return
    answer(False, {device.name: _way(device) for device in devices})


@app.command("add", epilog="Example: hwnas devices add pi --target raspberry-pi-4 --address tracker://10.0.0.2:9190/pi")
@told
def add(
    name: Annotated[str, typer.Argument(help="What to call it", show_default=False)],
    target: Annotated[str, typer.Option("--target", help="Of `hwnas devices list --targets`, or a TVM target's JSON")],
    address: Annotated[str, typer.Option("--address", help="tracker://HOST:PORT/KEY or rpc://HOST:PORT")] = "",
    runtime: Annotated[str | None, typer.Option("--runtime", help="What executes networks there")] = None,
    runner: Annotated[str | None, typer.Option("--runner", help="How it is reached, instead of the target's")] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of a network there")] = 1,
    as_json: Json = False,
) -> None:
    """Name a device. Nothing is asked of it: `hwnas devices probe NAME` does that."""
    entry = Entry(target=target, address=address, runtime=runtime, runner=runner, threads=threads)
    answer(as_json, {"added": Registry(registry_path()).add(name, entry).to_json()})


@app.command("remove", epilog="Example: hwnas devices remove pi")
@told
def remove(name: Name, as_json: Json = False) -> None:
    """Forget a device; what was measured on it stays."""
    Registry(registry_path()).remove(name)
    answer(as_json, {"removed": name})


@app.command("probe", epilog="Example: hwnas devices probe host")
@told
def probe(
    name: Annotated[str, typer.Argument(help="A name from `hwnas devices list`")] = "host", as_json: Json = False
) -> None:
    """Reach a device and say in half a minute what it is, whether it computes rightly and how its times scatter."""
    device = Registry(registry_path()).find(name)
    if device.runtime == "layers":
        answer(as_json, _modelled(device))
        return
    with Compiler(
        device.target, cache=Path(gettempdir()) / "hwnas-probe", workers=1, runtime=device.runtime
    ) as compiler:
        found = check(device, compiler)
    answer(as_json, found.to_json() if as_json else _summary(found))
    for problem in found.problems:
        Terminal().say(f"hwnas: {problem}", style="bold red")
    if found.problems:
        raise typer.Exit(1)


@app.command("serve", epilog="Example: hwnas devices serve --key pi --tracker 10.0.0.2:9190")
@told
def serve(
    key: Key,
    host: Host = "0.0.0.0",
    port: Annotated[int, typer.Option("--port", help="The first port to try")] = 9090,
    tracker: Tracker = None,
    custom_addr: Annotated[str | None, typer.Option("--custom-addr", help="The host that clients are told")] = None,
    instructions: Annotated[
        bool, typer.Option("--instructions", help="Say what to run on a board without hwnas, or on Android, and stop")
    ] = False,
) -> None:
    """Lend this machine over TVM's RPC until it is stopped. Who reaches the port may run any program here."""
    if instructions:
        typer.echo(serve_instructions(tracker or "HOST:9190", key))
        return
    command = serve_command(key, host=host, port=port, tracker=tracker, custom_addr=custom_addr)
    os.execv(command[0], command)


@app.command("tracker", epilog="Example: hwnas devices tracker --port 9190")
@told
def tracker(
    host: Host = "0.0.0.0",
    port: Annotated[int, typer.Option("--port", help="The first port to try")] = 9190,
    summary: Annotated[
        str | None, typer.Option("--summary", help="Say what the tracker at HOST:PORT lends, and stop")
    ] = None,
    as_json: Json = False,
) -> None:
    """Lend boards by their key until it is stopped; boards come to it with `hwnas devices serve --tracker`."""
    if summary is not None:
        place, _, number = summary.rpartition(":")
        if not place or not number.isdigit():
            raise typer.BadParameter(f"{summary!r} is no HOST:PORT")
        found = tracker_summary(place, int(number))
        answer(as_json, {key: {"boards": list(boards.places), "free": boards.free} for key, boards in found.items()})
        return
    # in a fresh process, which needs nothing of what the command line has loaded
    os.execv(sys.executable, [sys.executable, "-m", "hwnas.devices.tracker", "--host", host, "--port", str(port)])


def _way(device: Device) -> str:
    if device.runtime == "layers":
        return f"{device.runner} {device.address}, modelled: no board is measured"
    return " ".join(filter(None, (device.kind, device.runtime, "by", device.runner, device.address)))


def _modelled(device: Device) -> dict[str, Any]:
    runner = open_runner(device)
    try:
        return {"device": device.to_json(), "fingerprint": runner.fingerprint().to_json(), "modelled": True}
    finally:
        runner.close()


def _summary(found: Health) -> dict[str, Any]:
    state = found.before
    noise = "not known" if found.noise_floor is None else f"{found.noise_floor:.2%} (half the spread of five medians)"
    clock = [each.clock_mhz for each in (state, found.after)]
    return {
        "device": found.device.name,
        "soc": state.soc,
        "cores": state.cores,
        "runtime": state.runtime,
        "os": state.os,
        "governor": state.governor,
        "clock before and after, MHz": clock,
        "boards": found.boards,
        "reached in": f"{found.opened_s:.1f} s",
        "output against torch": "did not run" if found.deviation is None else f"{found.deviation:.1g}",
        "latency of the check network": "not known" if found.latency_ms is None else f"{found.latency_ms:.4f} ms",
        "noise floor": noise,
        "took": f"{found.took_s:.0f} s",
        "identity": state.identity,
        "health": "; ".join(found.problems) or "fit to be measured on",
    }
