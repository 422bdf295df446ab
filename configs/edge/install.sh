#!/usr/bin/env bash
# Installs the Prime Spark edge runtime on 64-bit Raspberry Pi OS (bookworm or trixie).
#
# Safe to repeat: each step looks first and changes only what differs. A new version is built beside
# the running one in a folder of its own, must import there, and is then switched to by renaming one
# link, so that a power cut leaves either the old environment or the new one, never half of one.
# `install.sh --help` says the rest.
set -euo pipefail
umask 022 # the service reads what root writes here

readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_UNSUPPORTED=3 EXIT_RIGHTS=4
readonly USER_NAME=prime-spark UNIT=prime-spark-edge.service NODE_UNIT=prime-spark-node.service
readonly DEFAULT_HOME=/var/lib/prime-spark
readonly DEFAULT_PREFIX=/opt/prime-spark CONFIG=/etc/prime-spark/edge.yaml
readonly COMMAND=/usr/local/bin/prime-spark PLAIN_PATH='^(/[A-Za-z0-9._-]+)+$'
readonly HEAD_PATTERN='^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$'

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly here CONSTRAINTS=$here/constraints.txt EXAMPLE=$here/edge.yaml
readonly JOIN_CONSTRAINTS=$here/constraints-join.txt UNITS=$here/../systemd

prefix=$DEFAULT_PREFIX home=$DEFAULT_HOME home_given=0
wheel='' wheelhouse='' site='' root='' head=''
start=1 any_arch=0 with_hailo=0 dry_run=0
python=${PYTHON:-python3}
changes=0 file_changed=0 service_changed=0 node_changed=0

usage() {
  cat <<'USAGE'
Installs the Prime Spark edge runtime on 64-bit Raspberry Pi OS: bookworm or trixie.

  sudo ./install.sh --wheel prime_spark-0.1.0-py3-none-any.whl --site north
  sudo ./install.sh --wheelhouse ./wheelhouse      without any network
  ./install.sh --dry-run                           say what it would do, change nothing

What it does, each step only where needed:
  1. refuses a 32-bit system, and a Python older than 3.11
  2. installs python3-venv, if Python cannot make environments
  3. makes the user prime-spark: no login, no groups
  4. makes an environment in PREFIX/env-..., checks that it imports, and points PREFIX/current
     at it; the one before stays for a way back
  5. writes /usr/local/bin/prime-spark: the program with the settings of the service
  6. writes /etc/prime-spark/edge.yaml, if there is none; yours is never touched
  7. writes, enables and starts the service prime-spark-edge
  8. with --join: writes and enables the service prime-spark-node, and starts it once the cluster's
     keys are here
  9. looks for a Hailo accelerator and says what it lacks

Options:
  --prefix DIR      where the program goes (/opt/prime-spark)
  --home DIR        where its state and models go (what edge.yaml says, else
                    /var/lib/prime-spark)
  --wheel FILE      install this wheel rather than the newest of the package index
  --wheelhouse DIR  take every package from this folder; the network is not used
  --site NAME       the name of this site: lower-case letters, digits, hyphens
  --join HOST:PORT  also make the box an edge node of the cluster with this head, whenever it can be
                    reached; brings Ray along; later runs keep it
  --with-hailo      also install the Debian packages that a Hailo accelerator here needs
  --no-start        install and enable, but do not start
  --root DIR        act below another root folder (image builders, tests): needs no root there,
                    calls neither apt nor systemctl; DIR must have the Python of this machine
  --any-arch        go on where the processor is not aarch64
  --dry-run         print each command and each file it would change; needs no root
  --help            this text

To upgrade, run it again with the new wheel. To see what is wrong:
  sudo -u prime-spark prime-spark edge doctor
PYTHON=... names another interpreter than python3.

Exit codes:
  0  done, or nothing to do
  1  a step failed; what was in use before still is
  2  the options make no sense
  3  this machine cannot run it: 32 bits, another processor, Python too old, no systemd
  4  root is needed
USAGE
}

say() { printf '%s\n' "$*"; }
note() { printf 'note: %s\n' "$*"; }

# die CODE MESSAGE [WHAT TO DO]
die() {
  printf 'install.sh: %s\n' "$2" >&2
  if [[ -n ${3:-} ]]; then printf '  %s\n' "$3" >&2; fi
  exit "$1"
}

# Run a command that changes something; in a dry run print it.
run() {
  changes=$((changes + 1))
  if ((dry_run)); then
    printf 'would run:'
    printf ' %q' "$@"
    printf '\n'
  else
    printf '+ %s\n' "$*"
    "$@"
  fi
}

# put_file PATH CONTENT [MODE]: write a file below the root if it differs, whole or not at all; sets
# file_changed. It is never called as a condition, where `set -e` does not hold.
put_file() {
  local target=$root$1 content=$2 mode=${3:-0644}
  file_changed=0
  if [[ -f $target ]] && [[ $(<"$target") == "$content" ]]; then return 0; fi
  file_changed=1
  changes=$((changes + 1))
  if ((dry_run)); then
    if [[ -f $target ]]; then
      say "would change: $target"
      diff -u "$target" <(printf '%s\n' "$content") | tail -n +3 || true
    else
      say "would write: $target ($(wc -l <<<"$content") lines)"
    fi
    return 0
  fi
  say "+ write $target"
  if ! { install -d -m 0755 "$(dirname "$target")" && printf '%s\n' "$content" >"$target.new" &&
    chmod "$mode" "$target.new" && sync "$target.new" && mv -f "$target.new" "$target"; }; then
    die $EXIT_FAILED "$target could not be written" \
      "is the disk full, or the file system read-only? (sudo mount -o remount,rw /)"
  fi
}

# ensure_link PATH TARGET: point a link below the root, by renaming, so that it is never missing.
ensure_link() {
  local path=$root$1 target=$2
  [[ $(readlink "$path" 2>/dev/null || true) != "$target" ]] || return 0
  [[ -d $(dirname "$path") ]] || run install -d -m 0755 "$(dirname "$path")"
  run ln -sfn "$target" "$path.new"
  run mv -fT "$path.new" "$path"
}

# --- options ---------------------------------------------------------------------------------

read_options() {
  local option value
  while (($#)); do
    option=$1
    shift
    case $option in
      --help | -h)
        usage
        exit 0
        ;;
      --no-start) start=0 && continue ;;
      --any-arch) any_arch=1 && continue ;;
      --with-hailo) with_hailo=1 && continue ;;
      --dry-run) dry_run=1 && continue ;;
      --*=*) value=${option#*=} option=${option%%=*} ;;
      --prefix | --home | --wheel | --wheelhouse | --site | --root | --join)
        (($#)) || die $EXIT_USAGE "$option needs a value" "install.sh --help shows which"
        value=$1
        shift
        ;;
      *) die $EXIT_USAGE "there is no option '$option'" "install.sh --help lists them" ;;
    esac
    [[ -n $value ]] || die $EXIT_USAGE "$option is empty"
    case $option in
      --prefix) prefix=${value%/} ;;
      --home) home=${value%/} home_given=1 ;;
      --wheel) wheel=$value ;;
      --wheelhouse) wheelhouse=$value ;;
      --site) site=$value ;;
      --root) root=$value ;;
      --join) head=$value ;;
      *) die $EXIT_USAGE "there is no option '$option=...'" "install.sh --help lists them" ;;
    esac
  done
}

check_options() {
  # These stand in a unit, in YAML and in sed: plain paths only.
  [[ $prefix =~ $PLAIN_PATH && $prefix != *..* ]] ||
    die $EXIT_USAGE "--prefix must be an absolute path of letters, digits, '.', '_' and '-'"
  [[ $home =~ $PLAIN_PATH && $home != *..* ]] ||
    die $EXIT_USAGE "--home must be an absolute path of letters, digits, '.', '_' and '-'"
  # Longer, and the socket would move to /tmp, of which the service has its own (cluster/home.py).
  ((${#home} <= 32)) || die $EXIT_USAGE "--home has more than 32 characters" \
    "a socket's path must be short: take a folder such as /data/prime-spark"
  case $home/ in
    /home/* | /root/* | /tmp/* | /run/* | /usr/* | /etc/*)
      die $EXIT_USAGE "--home $home cannot be written by the service" \
        "take a folder such as /var/lib/prime-spark or /data/prime-spark"
      ;;
  esac
  [[ -z $site || $site =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
    die $EXIT_USAGE "--site '$site' is not a name" "lower-case letters, digits and hyphens only"
  [[ -z $head || $head =~ $HEAD_PATTERN ]] ||
    die $EXIT_USAGE "--join '$head' is not HOST:PORT" \
      "the head's address and the port of its GCS, such as 10.20.0.10:6379"
  if [[ -n $wheel ]]; then
    [[ -f $wheel && $wheel == *.whl ]] || die $EXIT_USAGE "--wheel $wheel is not a wheel file"
    wheel=$(realpath "$wheel")
  fi
  if [[ -n $wheelhouse ]]; then
    [[ -d $wheelhouse ]] || die $EXIT_USAGE "--wheelhouse $wheelhouse is not a folder"
    wheelhouse=$(realpath "$wheelhouse")
    if [[ -z $wheel ]]; then
      wheel=$(find "$wheelhouse" -maxdepth 1 -name 'prime_spark-*.whl' | sort -V | tail -n 1)
      [[ -n $wheel ]] || die $EXIT_USAGE "$wheelhouse has no prime_spark-*.whl" \
        "put it there, or name it with --wheel"
    fi
  fi
  if [[ -n $root ]]; then
    [[ -d $root ]] || die $EXIT_USAGE "--root $root is not a folder"
    root=$(realpath "$root")
    [[ $root != / ]] || root=''
    ! ((with_hailo)) || die $EXIT_USAGE "--with-hailo cannot act below --root" \
      "install the packages in the image's own apt step"
  fi
  for source in "$CONSTRAINTS" "$JOIN_CONSTRAINTS" "$EXAMPLE" "$UNITS/$UNIT" "$UNITS/$NODE_UNIT"; do
    [[ -f $source ]] || die $EXIT_USAGE "$source is missing" \
      "keep configs/edge and configs/systemd together, as in the release"
  done
}

# --- this machine ----------------------------------------------------------------------------

check_machine() {
  local machine found bits version
  command -v "$python" >/dev/null || die $EXIT_UNSUPPORTED "there is no $python" \
    "Raspberry Pi OS brings it: sudo apt-get install python3"
  found=$("$python" -c 'import struct, sys; v = sys.version_info
print(struct.calcsize("P") * 8, "%d.%d" % v[:2], int(v >= (3, 11)))') ||
    die $EXIT_UNSUPPORTED "$python does not run"
  read -r bits version found <<<"$found"
  machine=$(uname -m)
  codename=$(os_release VERSION_CODENAME)
  # A 64-bit kernel under a 32-bit system is common on a Pi, so both are asked.
  if [[ $machine == arm* || $bits != 64 ]]; then
    die $EXIT_UNSUPPORTED "this is a 32-bit system (kernel $machine, Python of $bits bits)" \
      "its packages exist for 64 bits only: write 'Raspberry Pi OS (64-bit)' onto the card"
  fi
  if [[ $machine != aarch64 ]] && ! ((any_arch)); then
    die $EXIT_UNSUPPORTED "this processor is $machine, not aarch64" "--any-arch goes on anyway"
  fi
  ((found)) || die $EXIT_UNSUPPORTED "Python $version is too old: 3.11 is needed" \
    "that is bookworm or later; this is ${codename:-an unknown release}"
  python_version=$version
  case $codename in
    bookworm | trixie) ;;
    *) note "'${codename:-unknown}' is neither bookworm nor trixie; going on" ;;
  esac
  say "system: ${codename:-unknown}, $machine, Python $version"
}

os_release() {
  sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p" "$root/etc/os-release" 2>/dev/null || true
}

check_rights() {
  ! ((dry_run)) || return 0
  [[ -z $root ]] || return 0
  ((EUID == 0)) || die $EXIT_RIGHTS "root is needed" "run it with sudo, or try --dry-run first"
  [[ -d /run/systemd/system ]] || ! ((start)) ||
    die $EXIT_UNSUPPORTED "systemd does not run here" "--no-start installs without starting"
}

ensure_venv_module() {
  ! "$python" -c 'import ensurepip, venv' 2>/dev/null || return 0
  [[ -z $root ]] || die $EXIT_UNSUPPORTED "$python cannot make environments" \
    "install python3-venv on this machine and in the image"
  run apt-get install -y python3-venv ||
    die $EXIT_FAILED "python3-venv could not be installed" \
      "sudo apt-get update, then again; without a network: sudo apt-get install ./python3-venv*.deb"
}

# --- parts -----------------------------------------------------------------------------------

# A box that was installed with --home keeps it when this runs again without.
keep_home() {
  local found
  ! ((home_given)) || return 0
  found=$(config_value home)
  if [[ $found =~ $PLAIN_PATH && $found != *..* ]]; then home=$found; fi
}

# A box that has joined a cluster stays in it when this runs again without --join.
keep_head() {
  local unit=$root/etc/systemd/system/$NODE_UNIT
  [[ -z $head && -f $unit ]] || return 0
  head=$(sed -n 's/^ExecStart=.* --head[ =]\([^ ]*\).*$/\1/p' "$unit")
  [[ $head =~ $HEAD_PATTERN ]] ||
    die $EXIT_USAGE "$unit does not say which head the box joins" \
      "name it with --join HOST:PORT, or remove the unit if the box is to leave the cluster"
}

config_value() {
  sed -n "s/^ *$1: *\([^ #]*\).*/\1/p" "$root$CONFIG" 2>/dev/null | tail -n 1 || true
}

ensure_user() {
  local content
  # Declared rather than added, so that an image carries it and systemd can make it again.
  content="# Written by Prime Spark's installer.
# No groups: the vendor's rule 51-hailo-udev.rules opens /dev/hailo0 and /dev/h1x-0 to everybody
# (mode 0666), and the unit lets no other device through. If your image narrows that rule to a
# group, add a line: m $USER_NAME GROUP
u $USER_NAME - \"Prime Spark edge runtime\" $home"
  put_file /etc/sysusers.d/prime-spark.conf "$content"
  ! grep -qs "^$USER_NAME:" "$root/etc/passwd" || return 0
  [[ -n $root ]] || ! getent passwd "$USER_NAME" >/dev/null || return 0
  if ! command -v systemd-sysusers >/dev/null; then
    [[ -n $root ]] || die $EXIT_UNSUPPORTED "systemd-sysusers is missing"
    note "systemd-sysusers is missing here; run it in the image to make the user $USER_NAME"
    return 0
  fi
  if [[ -n $root ]]; then
    run systemd-sysusers "--root=$root" prime-spark.conf
  else
    run systemd-sysusers prime-spark.conf
  fi || die $EXIT_FAILED "the user $USER_NAME could not be made"
}

ensure_home() {
  local content
  # The default home is the unit's StateDirectory: systemd makes it, also on a first boot.
  [[ $home != "$DEFAULT_HOME" ]] || return 0
  content="# Written by Prime Spark's installer for --home.
d $home 0700 $USER_NAME $USER_NAME -"
  put_file /etc/tmpfiles.d/prime-spark.conf "$content"
  if [[ -z $root ]] && { ((file_changed)) || [[ ! -d $home ]]; }; then
    run systemd-tmpfiles --create prime-spark.conf
  fi
  content="# Written by Prime Spark's installer for --home.
[Unit]
RequiresMountsFor=$home

[Service]
ReadWritePaths=$home"
  put_file "/etc/systemd/system/$UNIT.d/home.conf" "$content"
  service_changed=$((service_changed | file_changed))
}

# What decides whether an installed environment is the wanted one.
environment_key() {
  {
    printf '%s %s %s\n' "$python_version" "$(uname -m)" "$prefix"
    cat "$CONSTRAINTS"
    [[ -z $head ]] || cat "$JOIN_CONSTRAINTS"
    if [[ -n $wheel ]]; then sha256sum <"$wheel"; else echo index; fi
  } | sha256sum | cut -c 1-12
}

ensure_environment() {
  local name folder from=() before extra=edge pins=(-c "$CONSTRAINTS") imports
  imports='cluster.cli.main, edge_runtime.backends.onnx, edge_runtime.protocol.grpc_service'
  if [[ -n $head ]]; then
    extra=cluster imports+=', cluster.supervisor, ray'
    pins+=(-c "$JOIN_CONSTRAINTS")
  fi
  name=env-$(environment_key)
  folder=$root$prefix/$name
  [[ -z $wheelhouse ]] || from=(--no-index --find-links "$wheelhouse")
  before=$(readlink "$root$prefix/current" 2>/dev/null || true)
  if [[ -e $folder/.complete && $before == "$name" ]]; then return 0; fi
  if [[ ! -e $folder/.complete ]]; then
    [[ ! -e $folder ]] || run rm -rf "$folder" # a power cut left half of it
    # No --system-site-packages: the vendor's hailo_platform wants an older numpy and is used by a
    # child process under the system's own Python.
    run "$python" -m venv "$folder" || die $EXIT_FAILED "the environment could not be made"
    run "$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
      --only-binary=:all: "${pins[@]}" ${from[@]+"${from[@]}"} "${wheel:-prime-spark}[$extra]" ||
      die $EXIT_FAILED "the packages could not be installed; pip says why above" \
        "without a network, use --wheelhouse; with one, check it and the free space, then try again"
    # A library that is not for this processor crashes here rather than in the service.
    run "$folder/bin/python" -I -c "import $imports" ||
      die $EXIT_FAILED "the new environment does not run on this machine" \
        "what was in use before still is; please report the output above"
    [[ -z $root ]] || relocate "$folder" "$prefix/$name"
    run sync
    run touch "$folder/.complete"
  fi
  ensure_link "$prefix/current" "$name"
  service_changed=1 node_changed=1
  for folder in "$root$prefix"/env-*; do
    [[ -d $folder ]] || continue
    case ${folder##*/} in
      "$name" | "$before") ;; # the one before stays: a way back
      *) run rm -rf "$folder" ;;
    esac
  done
}

# Scripts name their interpreter by its path here; in the image it is another.
relocate() {
  local files
  changes=$((changes + 1))
  if ((dry_run)); then say "would rewrite: $1 to $2 in its scripts" && return 0; fi
  say "+ rewrite $1 to $2 in its scripts"
  mapfile -t files < <(grep -rlIF -- "$1" "$1/bin" "$1/pyvenv.cfg")
  ((${#files[@]} == 0)) || sed -i "s|$1|$2|g" "${files[@]}"
}

ensure_command() {
  local content
  content="#!/bin/sh
# Written by Prime Spark's installer: the program with the settings of this box's service.
: \"\${PRIME_SPARK_CONFIG:=$CONFIG}\"
export PRIME_SPARK_CONFIG
exec $prefix/current/bin/prime-spark \"\$@\""
  if [[ -e $root$COMMAND ]] && ! grep -qs "Written by Prime Spark's installer" "$root$COMMAND"; then
    note "$COMMAND is yours and stays; the program is $prefix/current/bin/prime-spark"
    return 0
  fi
  put_file "$COMMAND" "$content" 0755
}

ensure_config() {
  local content found
  if [[ -e $root$CONFIG ]]; then
    found=$(config_value home)
    if ((home_given)) && [[ $found != "$home" ]]; then
      note "$CONFIG is yours and stays; it says 'home: $found', not $home"
    fi
    found=$(config_value site)
    if [[ -n $site && $found != "$site" ]]; then
      note "$CONFIG is yours and stays; it says 'site: $found', not $site"
    fi
    return 0
  fi
  content=$(sed -e "s|$DEFAULT_HOME|$home|" \
    -e "s|^\( *site:\) \([a-z0-9-]*\)|\1 ${site:-\\2}|" "$EXAMPLE")
  put_file "$CONFIG" "$content"
  service_changed=1
}

ensure_units() {
  local content
  content=$(sed "s|$DEFAULT_PREFIX/|$prefix/|" "$UNITS/$UNIT")
  put_file "/etc/systemd/system/$UNIT" "$content"
  service_changed=$((service_changed | file_changed))
  [[ -n $head ]] || return 0
  content=$(sed -e "s|$DEFAULT_PREFIX/|$prefix/|" -e "s|^ExecStart=.*|& --head $head|" \
    "$UNITS/$NODE_UNIT")
  put_file "/etc/systemd/system/$NODE_UNIT" "$content"
  node_changed=$((node_changed | file_changed))
}

enable_unit() {
  if [[ -n $root ]]; then
    ensure_link "/etc/systemd/system/multi-user.target.wants/$1" "/etc/systemd/system/$1"
  elif ! systemctl is-enabled --quiet "$1" 2>/dev/null; then
    run systemctl enable "$1"
  fi
}

start_service() {
  enable_unit "$UNIT"
  [[ -z $root ]] && ((start)) || return 0
  if ((service_changed)) || ! systemctl is-active --quiet "$UNIT" 2>/dev/null; then
    run systemctl daemon-reload
    run systemctl restart "$UNIT" || die $EXIT_FAILED "the service did not become ready" \
      "sudo journalctl -u $UNIT -n 50 says why; also: sudo -u $USER_NAME prime-spark edge doctor"
  fi
}

start_node() {
  local identity=$home/identity
  [[ -n $head ]] || return 0
  enable_unit "$NODE_UNIT"
  [[ -n $root ]] || ! ((node_changed)) || run systemctl daemon-reload
  say "cluster: $head"
  if ! grep -qs '^ray:' "$root$CONFIG"; then
    say "  Ray listens on loopback only. In $CONFIG, for this box's address on the trusted"
    say "  network, say 10.20.0.21:"
    say "    ray: {address: 10.20.0.21}"
  fi
  # The runtime makes a key set of its own where there is none: that one tells nothing.
  if [[ ! -e $root$identity/ray-token ]]; then
    say "  To join, copy ray-token and jwks.json from 'identity' in the head's home to $identity,"
    say "  mode 0600, owner $USER_NAME, and remove $identity/signing-key.pem: the cluster's tokens"
    say "  count here then, in place of the box's own. Then:"
    say "    sudo systemctl restart $UNIT $NODE_UNIT"
    return 0
  fi
  [[ -z $root ]] && ((start)) || return 0
  if ((node_changed)) || ! systemctl is-active --quiet "$NODE_UNIT" 2>/dev/null; then
    run systemctl restart "$NODE_UNIT" || die $EXIT_FAILED "$NODE_UNIT did not start" \
      "sudo journalctl -u $NODE_UNIT -n 50 says why; clients of this site are not affected"
  fi
}

# --- the accelerator -------------------------------------------------------------------------

# Sets hailo_family (8, 10, unknown or nothing), hailo_driver, hailo_node, hailo_binding (its state)
# and hailo_wrong (installed packages of the other family).
survey_hailo() {
  local device vendor modules=$root/proc/modules
  hailo_family='' hailo_driver='' hailo_node='' hailo_binding='' hailo_wrong=()
  # The bus tells most surely: on trixie no driver is loaded before the packages are installed, and
  # the name of the node differs between driver versions. Numbers: hailort-drivers,
  # common/pcie_common.h of both lines.
  for device in "$root"/sys/bus/pci/devices/*; do
    vendor=$(cat "$device/vendor" 2>/dev/null || true)
    [[ $vendor == 0x1e60 ]] || continue
    case $(cat "$device/device" 2>/dev/null || true) in
      0x2864) hailo_family=8 ;;
      0x45c4) hailo_family=10 ;;
      *) hailo_family=${hailo_family:-unknown} ;;
    esac
  done
  # The loaded module, not the file: both may be installed.
  if grep -qs '^hailo_pci ' "$modules"; then hailo_driver=hailo_pci; fi
  if grep -qs '^hailo1x_pci ' "$modules"; then
    hailo_driver=${hailo_driver:+$hailo_driver and }hailo1x_pci
  fi
  for device in /dev/h1x-0 /dev/hailo0; do
    if [[ -e $root$device ]]; then hailo_node=$device; fi
  done
  if [[ -z $hailo_family ]]; then
    case $hailo_driver/$hailo_node in
      hailo_pci/*) hailo_family=8 ;;
      hailo1x_pci/*) hailo_family=10 ;;
      hailo_pci*) hailo_family=unknown ;;
      */dev/hailo0) hailo_family=8 ;;
      */dev/h1x-0) hailo_family=10 ;;
    esac
  fi
  hailo_binding=$(binding_state)
  case $hailo_family in
    8) mapfile -t hailo_wrong < <(installed h10-hailort python3-h10-hailort hailo-h10-all) ;;
    10) mapfile -t hailo_wrong < <(installed hailort python3-hailort hailo-all) ;;
  esac
}

# "missing", "found", or why it cannot be imported.
binding_state() {
  if [[ -n $root ]]; then # nothing of the image is run
    [[ -d $root/usr/lib/python3/dist-packages/hailo_platform ]] && echo found || echo missing
    return 0
  fi
  timeout 30 /usr/bin/python3 - <<'PROBE' 2>/dev/null || echo "its import does not end, or crashes"
import importlib.util
if importlib.util.find_spec("hailo_platform") is None:
    print("missing")
else:
    try:
        import hailo_platform
        print("found")
    except Exception as error:
        print(" ".join(str(error).split())[:200] or type(error).__name__)
PROBE
}

# Print those of the named Debian packages that are installed.
installed() {
  local name
  for name in "$@"; do
    if awk -v name="$name" '
      /^Package: / { package = $2 }
      /^Status: / && package == name && $4 == "installed" { found = 1 }
      END { exit !found }' "$root/var/lib/dpkg/status" 2>/dev/null; then
      echo "$name"
    fi
  done
}

report_hailo() {
  local name driver packages=()
  survey_hailo
  case $hailo_family in
    '')
      say "hailo: no accelerator found; models run on the CPU"
      return 0
      ;;
    unknown)
      say "hailo: a device that is neither Hailo-8, 8L nor 10H (driver ${hailo_driver:-none})"
      say "  models run on the CPU; lspci -nn -d 1e60: shows it"
      return 0
      ;;
    8) name='Hailo-8 or 8L' driver=hailo_pci packages=(hailo-all) ;;
    10) name=Hailo-10H driver=hailo1x_pci packages=(h10-hailort python3-h10-hailort) ;;
  esac
  say "hailo: $name; driver ${hailo_driver:-not loaded}; node ${hailo_node:-none};" \
    "binding: $hailo_binding"
  if ((${#hailo_wrong[@]})); then
    say "  Packages of the other family are installed, and the two do not mix. First:"
    say "    sudo apt-get remove ${hailo_wrong[*]}"
  fi
  if [[ $hailo_family == 10 && $codename == bookworm ]]; then
    say "  Its Python binding needs Python 3.13: Raspberry Pi OS trixie. Until then models run on"
    say "  the CPU."
    return 0
  fi
  if [[ " $hailo_driver " == *" $driver "* ]]; then
    if [[ $hailo_binding == found && -n $hailo_node ]]; then
      ((${#hailo_wrong[@]})) || say "  complete"
      return 0
    elif [[ $hailo_binding == found ]]; then
      say "  The driver is loaded and made no device; it says why: sudo dmesg | grep -i hailo"
      return 0
    fi
  elif [[ $hailo_family == 10 ]]; then
    packages=(dkms h10-hailort-pcie-driver "${packages[@]}")
  elif [[ $codename != bookworm ]]; then
    packages=(dkms "${packages[@]}") # bookworm's kernel brings the driver of the 8
  fi
  if ! ((with_hailo)) || ((${#hailo_wrong[@]})); then
    say "  To use it:"
    case $hailo_binding in
      missing | found) say "    sudo apt-get install ${packages[*]}" ;;
      *) say "    sudo apt-get install --reinstall ${packages[*]}" ;;
    esac
    say "    sudo reboot"
    return 0
  fi
  run apt-get install -y "${packages[@]}" ||
    die $EXIT_FAILED "the packages for the $name could not be installed" \
      "the service runs on the CPU meanwhile; apt says why above"
  say "  restart the machine to load the driver: sudo reboot"
}

report_memory() {
  local controllers=$root/sys/fs/cgroup/cgroup.controllers
  [[ -f $controllers ]] && ! grep -qw memory "$controllers" || return 0
  # raspberrypi/linux#6980: Pi OS starts its kernel with cgroup_disable=memory.
  note "the kernel's memory controller is off, so the unit's MemoryMax has no effect; append"
  say "  cgroup_enable=memory to the line in /boot/firmware/cmdline.txt and reboot"
}

finish() {
  if ((dry_run)); then
    say "dry run: $changes changes would be made, none was"
  elif ((changes == 0)); then
    say "nothing changed: everything was in place"
  else
    say "done: $changes changes"
    [[ -n $root ]] || say "next: sudo -u $USER_NAME prime-spark edge doctor; settings: $CONFIG"
  fi
}

main() {
  read_options "$@"
  check_options
  check_machine
  check_rights
  keep_home
  keep_head
  ensure_venv_module
  ensure_user
  ensure_environment
  ensure_command
  ensure_config
  ensure_home
  ensure_units
  start_service
  start_node
  report_hailo
  report_memory
  finish
}

main "$@"
