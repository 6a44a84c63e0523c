"""A short run of the pennyweight that is installed: by the command, and by the
package, to the same weights. Usage: try_installed.py MODEL"""

import subprocess
import sys
import tempfile
from pathlib import Path

import pennyweight


def main():
    model = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        own, command = Path(folder, "own"), Path(folder, "command")
        report = pennyweight.gptq(
            model, own, data=model / "calibration.txt", num_samples=16,
            sequence_length=64)
        subprocess.run(
            ["pennyweight", "gptq", "--model", str(model), "-o", str(command),
             "--data-path", str(model / "calibration.txt"), "--num-samples", "16",
             "--sequence-length", "64", "--quiet"], check=True)
        for file in own.glob("*.safetensors"):
            if file.read_bytes() != (command / file.name).read_bytes():
                sys.exit(f"{file.name} differs between command and package")
        found = pennyweight.evaluate(
            own, reference=model, data=model / "sample.txt", num_samples=8,
            sequence_length=64)
    print(f"pennyweight {pennyweight.__version__} of {pennyweight.__file__}: "
          f"{report.bits_per_weight:.3f} bits a weight, KL {found.kl.mean.mean:.4f}")


if __name__ == "__main__":
    main()
