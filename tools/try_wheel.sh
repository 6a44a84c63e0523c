#!/usr/bin/env bash
# Installs dist/'s wheel where there is no compiler, in a minute at most, and has
# the command and the Python package quantize the demo model: both must make the
# bytes that the built program makes. Usage: try_wheel.sh PROGRAM
#
# The place is a minimal Debian of its own (debootstrap, as root), which is kept
# in build/clean-root; else, saying so, a venv with nothing else on its PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "$1")
work=build/try
root=build/clean-root
most=60 # seconds for pip install

die() {
  echo "try_wheel: $*" >&2
  exit 1
}

wheel=$(ls dist/pennyweight-*.whl) || die "no wheel in dist/; run make wheel"
[ "$(wc -l <<< "$wheel")" = 1 ] || die "more than one wheel in dist/"

# A Debian like this one, from where this one has its packages.
make_root() {
  [ -e $root.stamp ] && return
  [ "$(id -u)" = 0 ] && [ -r /etc/os-release ] || return 1
  local id codename mirror
  id=$(. /etc/os-release && echo "${ID:-}")
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  [ "$id" = debian ] || return 1
  command -v debootstrap > /dev/null ||
    apt-get install -qq -y debootstrap > /dev/null || return 1
  mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $codename" |
    head -n 1)
  rm -rf $root
  mkdir -p build
  debootstrap --variant=minbase \
    --include=python3,python3-venv,python3-pip,ca-certificates \
    "$codename" $root "$mirror" > build/clean-root.log 2>&1 || return 1
  touch $root.stamp
}

# In: a folder with the wheel and the model. Out: its folders command and python.
cat_steps() {
  cat << 'STEPS'
set -eu
for tool in cc gcc g++ c++ clang ld as make cmake ninja cargo rustc; do
  if command -v $tool > /dev/null; then
    echo "try_wheel: there is a $tool" >&2
    exit 1
  fi
done
rm -rf venv command python
python3 -m venv venv
start=$(date +%s.%N)
venv/bin/python -m pip install -q --disable-pip-version-check *.whl
python3 -c "import sys; print(f'{float(sys.argv[2]) - float(sys.argv[1]):.0f}')" \
  $start $(date +%s.%N) > seconds
mkdir command python
PATH="$PWD/venv/bin:$PATH"
(cd command && pennyweight quantize ../demo -o out --target-bpw 4.5 --effort fast \
  --data-path ../demo/calibration.txt --sequence-length 128 --quiet > /dev/null)
cd python && python -W ignore -c '
import pennyweight
pennyweight.quantize("../demo", "out", target_bpw=4.5, effort="fast",
                     data="../demo/calibration.txt", sequence_length=128)'
STEPS
}

rm -rf $work
mkdir -p $work/program
cp -r assets/demo $work/demo
cp "$wheel" $work
(cd $work/program && "$program" quantize ../demo -o out --target-bpw 4.5 \
  --effort fast --data-path ../demo/calibration.txt --sequence-length 128 \
  --quiet > /dev/null)

if make_root; then
  where="a minimal Debian"
  rm -rf $root/try
  cp -r $work $root/try
  cp /etc/resolv.conf $root/etc/resolv.conf
  # What this machine trusts, for a package registry that has a certificate of
  # the network's own.
  [ ! -r /etc/ssl/certs/ca-certificates.crt ] ||
    cp /etc/ssl/certs/ca-certificates.crt $root/etc/ssl/certs/
  cat_steps > $root/try/steps
  unshare -m bash -euc 'mount -t proc proc "$1/proc"
    for device in null zero urandom; do
      touch "$1/dev/$device"
      mount --bind /dev/$device "$1/dev/$device"
    done
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
      PIP_CERT=/etc/ssl/certs/ca-certificates.crt chroot \
      "$1" bash -c "cd /try && exec bash steps"' _ $root ||
    die "the wheel does not work in $where"
  rm -rf $work
  mv $root/try $work
else
  where="a venv without compilers on its PATH (no debootstrap here, or not as root)"
  mkdir -p $work/bin
  for tool in bash date mkdir rm; do
    ln -s "$(command -v $tool)" $work/bin/
  done
  ln -s "$(.venv/bin/python -c \
    'import os, sys; print(os.path.realpath(sys.executable))')" $work/bin/python3
  cat_steps > $work/steps
  (cd $work && PATH=$PWD/bin bash steps) || die "the wheel does not work in $where"
fi

seconds=$(cat $work/seconds)
[ "$seconds" -le $most ] || die "pip install took $seconds s in $where, over $most"
for own in command python; do
  for file in $work/program/out/*; do
    name=$(basename "$file")
    # These tell times.
    case $name in report.html | README.md) continue ;; esac
    cmp "$file" "$work/$own/out/$name" ||
      die "$own and the built program differ in $name"
  done
done
echo "try_wheel: $(basename "$wheel") in $where: installed in $seconds s; command" \
  "and package make the program's $(ls $work/program/out | wc -l) files"
