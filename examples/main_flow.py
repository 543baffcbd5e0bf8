"""The whole job from Python: python examples/main_flow.py examples/digits.toml"""

import sys
from pathlib import Path

from hwnas.engine.candidates import front_of, search_run
from hwnas.engine.config import read_config
from hwnas.engine.deploy import export_front
from hwnas.engine.hardware import Latency, build_table, open_bench, open_table
from hwnas.engine.problem import Problem
from hwnas.engine.run import Run
from hwnas.engine.verify import verify, write_measurements

if __name__ == "__main__":  # compiling starts processes
    run = Run(read_config(Path(sys.argv[1])))
    run.begin()
    run.train(on_epoch=lambda record: print("epoch", record.epoch, "loss", round(record.loss, 3)))
    with open_bench(run) as bench:  # the device, its compiler and its timing process
        table = open_table(run, bench)
        build_table(run, bench, table)
        problem = Problem.of(run, Latency.of(run.space, table, predictor="corrected"))
        predicted = front_of(run, problem, search_run(run, problem))
        verified = verify(run, bench, table, predicted)
        run.write_front(verified.front)
        write_measurements(run, verified)
        export_front(run, bench, verified.front, libraries=verified.libraries)
    print(verified.front.knee())
