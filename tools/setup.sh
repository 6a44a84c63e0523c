#!/usr/bin/env bash
# Brings what the build (`setup.sh build`), the tests as well (`setup.sh tests`) or
# a wheel (`setup.sh wheel`) need: system packages, through apt-get or Homebrew,
# and a .venv with pinned Python packages. Does nothing, quickly, when all is
# there. `setup.sh macos` and `setup.sh aarch64` bring what the checks for other
# platforms need beside.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-build}

die() {
  echo "setup: $*" >&2
  exit 1
}

debian_packages=(g++ cmake ninja-build make git python3-venv python3-dev libdnnl-dev
  libhwy-dev nlohmann-json3-dev libcli11-dev libxxhash-dev
  libgtest-dev)
[ "$what" = tests ] && debian_packages+=(clang-format openmpi-bin libopenmpi-dev
  libopenblas0-pthread)
# The report page is tested in a browser. Ubuntu has none as a package, and on a
# Mac a Google Chrome or Chromium that is there is used; without, the test skips.
if [ "$what" = tests ] && grep -qs '^ID=debian' /etc/os-release; then
  debian_packages+=(chromium)
fi
brew_packages=(cmake ninja highway nlohmann-json cli11 xxhash googletest)
[ "$what" = tests ] && brew_packages+=(clang-format open-mpi)

has_headers='import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
if [ "$what" = aarch64 ]; then
  # The check says so, too, and is skipped.
  grep -qs '^ID=debian' /etc/os-release || exit 0
  debian_packages=(g++-aarch64-linux-gnu qemu-user libhwy-dev:arm64
    libgtest-dev:arm64 libxxhash-dev:arm64 libopenblas0-pthread:arm64)
fi

apt_setup() {
  local missing=() package
  for package in "${debian_packages[@]}"; do
    # A python built from source has its own venv module and headers.
    case $package in
      python3-venv) python3 -c 'import ensurepip' 2> /dev/null && continue ;;
      python3-dev) python3 -c "$has_headers" 2> /dev/null && continue ;;
    esac
    dpkg-query -W -f='${Status}' "$package" 2> /dev/null |
      grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2> /dev/null ||
      die "run this first: sudo apt-get install ${missing[*]}"
    as_root=(sudo -n)
  fi
  echo "setup: installing ${missing[*]}"
  [ "$what" != aarch64 ] || "${as_root[@]}" dpkg --add-architecture arm64
  "${as_root[@]}" apt-get update -qq > /dev/null ||
    die "apt-get update failed; check the network"
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qq -y \
    --no-install-recommends "${missing[@]}" > /dev/null ||
    die "apt-get could not install: ${missing[*]}"
}

brew_setup() {
  command -v brew > /dev/null ||
    die "install Homebrew, then: brew install ${brew_packages[*]}"
  local missing=() package have
  have=$(brew list --formula -1)
  for package in "${brew_packages[@]}"; do
    grep -qx "$package" <<< "$have" || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] || brew install --quiet "${missing[@]}"
}

if command -v apt-get > /dev/null; then
  apt_setup
elif [ "$(uname)" = Darwin ]; then
  brew_setup
else
  for tool in cmake ninja c++; do
    command -v $tool > /dev/null ||
      die "install cmake, ninja, a C++20 compiler, oneDNN, Highway," \
        "nlohmann-json, CLI11, xxHash and GoogleTest with your package manager"
  done
fi

# Cargo may be rustup's and not on the path of a non-login shell.
PATH="$PATH:$HOME/.cargo/bin"
command -v cargo > /dev/null ||
  die "cargo is missing: install Rust 1.85 or newer (rustup.rs)"
version=$(cargo --version | awk '{print $2}')
printf '1.85.0\n%s\n' "$version" | sort -CV ||
  die "cargo $version is too old: install Rust 1.85 or newer (rustup.rs)"

requirements=(tools/requirements-build.txt)
[ "$what" = tests ] && requirements+=(tools/requirements-tests.txt)
[ "$what" = wheel ] && requirements+=(tools/requirements-wheel.txt)
[ "$what" = macos ] && requirements+=(tools/requirements-macos.txt)
for file in "${requirements[@]}"; do
  stamp=".venv/$(basename "$file").stamp"
  cmp -s "$file" "$stamp" && continue
  [ -x .venv/bin/python ] || python3 -m venv .venv ||
    die "python3 -m venv failed; install python3-venv"
  echo "setup: installing $file into .venv"
  .venv/bin/python -m pip install -q --disable-pip-version-check -r "$file" ||
    die "pip could not install $file; check the network"
  cp "$file" "$stamp"
done

# The command as pip installs it, with this clone's build of its core.
printf '#!%s\nimport sys\nsys.path.insert(0, "%s")\nfrom pennyweight.main import main\nmain()\n' \
  "$PWD/.venv/bin/python" "$PWD/python" > .venv/bin/pennyweight
chmod +x .venv/bin/pennyweight
