#!/usr/bin/env bash
# Builds the container images and tells their sizes.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
images/build.sh, or `make images`: build the images of all roles, print what they weigh.
A build ends with the import of all that its role needs; without it there is no image.

Settings, from the environment (or `make images ROLE=serve …`):
  ROLE        spark, tools, train or serve; several are separated by spaces     (all four)
  ENGINE      docker, podman or buildah                                         (the first that answers)
  BASE        base image: Debian with Python 3.11 and its venv module           (python:3.11-slim-bookworm)
  NAME        name of an image; ROLE in it stands for the role                  (understudy/ROLE-python)
  TAG                                                                           (the package's version)
  VARIANT     of train: cpu or cuda; cuda is appended to its tag                (cpu)
  SOURCE      address of the source code, for the label                         (none)
  SBOM        folder for a bill of materials per image (CycloneDX)              (build/sbom)
  BUILD_ARGS  more arguments of the engine's `build`                            (none)

Behind a mirror, pip's configuration and certificates are secrets of the build and stay out of the images:
  BUILD_ARGS='--secret id=pip,src=/etc/pip.conf --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt'
A CPU build of PyTorch that lies there, too:  BUILD_ARGS='… --build-arg TORCH_INDEX='
Jars for Spark on s3:// (docs/cluster.md):  BUILD_ARGS='--build-arg SPARK_JARS=URL#SHA-256,URL#SHA-256,URL#SHA-256'
For kind and the manifests:  NAME=understudy-ROLE TAG=dev
TEXT
}

if [ $# -gt 0 ]; then
  usage
  case "$1" in -h | --help) exit 0 ;; *) exit 2 ;; esac
fi

fail() {
  echo "error: $1" >&2
  exit 2
}

answering() {
  for one in docker podman buildah; do
    if command -v "$one" >/dev/null && "$one" info >/dev/null 2>&1; then
      echo "$one"
      return
    fi
  done
}

engine=${ENGINE:-$(answering)}
[ -n "$engine" ] || fail "expected docker, podman or buildah to answer, found none; start one, or name it with ENGINE="
"$engine" info >/dev/null 2>&1 || fail "ENGINE=$engine: expected it to answer \`$engine info\`, found that it does not"
kind=$(basename "$engine")

base=${BASE:-docker.io/library/python:3.11-slim-bookworm}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' understudy/__init__.py)
tag=${TAG:-$version}
variant=${VARIANT:-cpu}
sbom=${SBOM:-build/sbom}
revision=$(git rev-parse HEAD 2>/dev/null || true)
if [ -n "$(git status --porcelain -- components images pipelines requirements understudy pyproject.toml 2>/dev/null)" ]; then
  revision="$revision-dirty"
fi

name_of() {
  local name=${NAME:-understudy/ROLE-python} suffix=
  if [ "$1" = train ] && [ "$variant" != cpu ]; then suffix="-$variant"; fi
  echo "${name//ROLE/$1}:$tag$suffix"
}

build() {
  local layers=()
  if [ "$kind" = buildah ]; then layers=(--layers); fi
  # shellcheck disable=SC2086  # several arguments
  DOCKER_BUILDKIT=1 "$engine" build ${layers[@]+"${layers[@]}"} ${BUILD_ARGS:-} --file images/Containerfile \
    --build-arg "BASE=$base" --build-arg "ROLE=$1" --build-arg "VARIANT=$variant" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "SOURCE=${SOURCE:-}" \
    --tag "$2" --iidfile "$3" .
}

bytes_of() {
  if [ "$kind" = buildah ]; then
    # In words only, such as 352 MB.
    "$engine" images --format '{{.Size}}' "$1" | head -1 |
      awk '{ print int($1 * ($2 == "GB" ? 1e9 : $2 == "MB" ? 1e6 : $2 == "KB" ? 1e3 : 1)) }'
  else
    "$engine" image inspect --format '{{.Size}}' "$1"
  fi
}

# The image's own bill lists Python's packages; syft and trivy list Debian's, too.
bill() {
  local image=$1 id=$2 file=$3
  if command -v syft >/dev/null; then
    syft --quiet "$image" --output "cyclonedx-json=$file"
  elif command -v trivy >/dev/null; then
    trivy image --quiet --format cyclonedx --output "$file" "$image"
  elif [ "$kind" = buildah ]; then
    local container
    container=$("$engine" from --pull-never "$id")
    "$engine" run "$container" -- cat /opt/venv/sbom.cdx.json >"$file"
    "$engine" rm "$container" >/dev/null
  else
    "$engine" run --rm --network none "$id" cat /opt/venv/sbom.cdx.json >"$file"
  fi
}

mkdir -p "$sbom"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
table=()
for role in ${ROLE:-serve tools spark train}; do
  case "$role" in
    spark | tools | train | serve) ;;
    *) fail "ROLE=$role: expected spark, tools, train or serve" ;;
  esac
  image=$(name_of "$role")
  echo "building $image with $kind" >&2
  started=$SECONDS
  build "$role" "$image" "$work/id" >&2 || { echo "error: $image: could not be built; the engine says why above" >&2; exit 1; }
  took=$((SECONDS - started))
  id=$(<"$work/id")
  bill "$image" "$id" "$sbom/$role.cdx.json"
  megabytes=$(($(bytes_of "$id") / 1000000))
  table+=("$(printf '%-40s %6d MB %6d s   %s' "$image" "$megabytes" "$took" "$sbom/$role.cdx.json")")
done

printf '\n%-40s %9s %8s   %s\n' image size built "bill of materials"
printf '%s\n' "${table[@]}"
if size=$(bytes_of "$base" 2>/dev/null) && [ -n "$size" ]; then echo "of each, the base $base: $((size / 1000000)) MB"; fi
