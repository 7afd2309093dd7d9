# Set-up shared by ./test and ./quickstart; sourced, from the root of the repository.
#
#   setup_packages NAME...   Debian or Ubuntu packages, installed only when missing
#   setup_python             leaves in $TESSERA_PYTHON a Python that has torch
#   setup_python_packages NAME...   modules for $TESSERA_PYTHON, installed only when missing
#   setup_build              configures and builds preset release
#
# Every function prints what it is about to do and why, and stops the script when it cannot be done.

TORCH_VERSION=2.13.0

# Paths below the root do not count for ccache, so another clone of the same sources builds from the same cache.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

# What the build needs. The names are the same on Debian 12 and Ubuntu 24.04.
BUILD_PACKAGES="g++ cmake ninja-build ccache mold pkg-config python3-venv curl
  libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libfmt-dev libxxhash-dev libhwy-dev
  libboost-dev libssl-dev libcurl4-openssl-dev libpcre2-dev libutf8proc-dev libzstd-dev zlib1g-dev liburing-dev libgtest-dev
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc"

say() { printf '%s\n' "$*"; }
heading() { printf '\n== %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

missing_packages() {
  local package
  for package in "$@"; do
    case "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" in
      installed) ;;
      *) printf '%s ' "$package" ;;
    esac
  done
}

setup_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "No Debian packages on this system: taking compiler and libraries as they are."
    return
  fi
  local missing as_root=""
  missing=$(missing_packages "$@")
  [ -z "$missing" ] && return
  say "Packages the build or the tests need and this machine lacks: $missing"
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo; ask an administrator for: apt-get install $missing"
    as_root="sudo"
    say "Installing them with sudo apt-get (it may ask for your password)."
  else
    say "Installing them with apt-get, as root."
  fi
  # One try with the lists at hand would be quicker, but lists of a fresh machine are empty or old.
  $as_root apt-get update -qq || say "apt-get update failed; going on with the lists at hand"
  # shellcheck disable=SC2086
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    die "apt-get could not install: $missing"
}

has_module() { "$1" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$2') is None)" 2>/dev/null; }

setup_python() {
  if [ -n "${TESSERA_PYTHON:-}" ]; then
    has_module "$TESSERA_PYTHON" torch || die "TESSERA_PYTHON=$TESSERA_PYTHON has no torch package"
  elif has_module python3 torch; then
    TESSERA_PYTHON=$(python3 -c 'import sys; print(sys.executable)')
    say "Using the torch of the active Python: $TESSERA_PYTHON"
  elif [ -x build/venv/bin/python ] && has_module build/venv/bin/python torch; then
    TESSERA_PYTHON=$PWD/build/venv/bin/python
    say "Using the torch in build/venv."
  else
    install_torch
    TESSERA_PYTHON=$PWD/build/venv/bin/python
  fi
  export TESSERA_PYTHON
}

install_torch() {
  say "No Python with torch found: installing torch $TORCH_VERSION into build/venv (nothing outside changes)."
  say "Download: about 0.2 GB (0.7 GB unpacked) if your pip is set to an index with the CPU build, about 3 GB"
  say "(7 GB unpacked) for the CUDA build that PyPI gives. Your pip settings are respected; to use a torch you have,"
  say "activate its environment first or set TESSERA_PYTHON."
  local free_gb
  free_gb=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1048576))
  [ "$free_gb" -ge 2 ] || die "only $free_gb GB free here; torch needs at least 2 GB (CPU build)"
  [ -x build/venv/bin/python ] || python3 -m venv build/venv || die "python3 -m venv build/venv failed; install python3-venv"
  build/venv/bin/python -m pip install "torch==$TORCH_VERSION" || die "pip could not install torch==$TORCH_VERSION"
}

setup_python_packages() {
  local package missing=""
  for package in "$@"; do
    has_module "$TESSERA_PYTHON" "$package" || missing="$missing ${package//_/-}"
  done
  [ -z "$missing" ] && return
  say "Python packages the tests need as oracles and peers:$missing"
  # shellcheck disable=SC2086
  "$TESSERA_PYTHON" -m pip install --quiet $missing && return
  # An externally managed Python refuses: put an environment on top of it.
  say "$TESSERA_PYTHON takes no packages; putting them into build/test-venv on top of it."
  "$TESSERA_PYTHON" -m venv --system-site-packages build/test-venv || die "no environment on $TESSERA_PYTHON"
  TESSERA_PYTHON=$PWD/build/test-venv/bin/python
  # shellcheck disable=SC2086
  "$TESSERA_PYTHON" -m pip install --quiet $missing || die "pip could not install:$missing"
}

setup_build() {
  # A folder that was never built is built whole, once: several files at a time. Who works on the code has one of his own.
  if [ ! -e build/release/CMakeCache.txt ]; then
    configure_build -DTESSERA_UNITY=ON
    cmake --build --preset release -j "$(nproc)" "$@" && return
    say "Several files of a part do not compile as one: building them one by one."
    configure_build -DTESSERA_UNITY=OFF
  else
    configure_build
  fi
  cmake --build --preset release -j "$(nproc)" "$@" || die "the build failed; the lines above say where"
}

configure_build() {
  cmake --preset release -DTESSERA_PYTHON="$TESSERA_PYTHON" "$@" >build/configure.log 2>&1 ||
    { cat build/configure.log >&2; die "cmake could not configure; the lines above say why"; }
}
