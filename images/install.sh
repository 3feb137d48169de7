#!/bin/sh
# What the stages of the Containerfile run: `builder`, `packages` and `code`, which are left behind; `runtime` and, at the
# end, `imports`. `extras` says what a role is made of.
set -eu

python=/opt/venv/bin/python
if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi

builder() {
  debian binutils
  python3 -m venv /tmp/pip
  python3 -m venv /tmp/sbom
  /tmp/sbom/bin/pip --disable-pip-version-check --quiet install cyclonedx-bom==7.5.0
  python3 -m venv --without-pip /opt/venv
}

# The extras of pyproject.toml that a role has; each has a lock of its name.
extras() {
  case "$ROLE" in
    spark) echo spark s3 ;;
    tools) echo tools collect s3 ;;
    train) echo train s3 ;;
    serve) echo serve s3 ;;
    *) echo "ROLE: expected spark, tools, train or serve, found '$ROLE'" >&2; exit 2 ;;
  esac
}

packages() {
  names=$(extras)
  if [ "$ROLE" = train ]; then torch; fi
  for one in $names; do locked --requirement "requirements/$one.txt"; done
  case "$ROLE" in
    spark) executor; spark_jars ;;
    serve) without_arrow_flight ;;
    *) executor ;;
  esac
  /tmp/sbom/bin/cyclonedx-py environment "$python" --output-reproducible --output-file /opt/venv/sbom.cdx.json
  lean
  compiled /opt/venv/lib
}

code() {
  pip install --no-deps --no-compile --target /app .
  compiled /app
}

runtime() {
  if [ "$ROLE" = spark ]; then
    mkdir -p /usr/share/man/man1 # slim images have none, and the package fails without
    debian openjdk-17-jre-headless
  fi
  echo 'understudy:x:10001:10001::/tmp:/usr/sbin/nologin' >>/etc/passwd
  echo 'understudy:x:10001:' >>/etc/group
  for lib in /usr/lib /usr/local/lib; do
    rm -rf "$lib"/python3*/ensurepip "$lib"/python3*/site-packages/pip* "$lib"/python3*/site-packages/setuptools* \
      "$lib"/python3*/site-packages/wheel*
  done
  rm -rf /usr/share/python-wheels /usr/local/bin/pip* /usr/local/bin/wheel
}

# As the user and with the environment of what runs: whatever of the above went wrong is found here.
imports() {
  names=$(extras)
  # shellcheck disable=SC2086  # one argument each
  exec "$python" "$(dirname "$0")/imports.py" "$ROLE" $names
}

debian() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
  rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
}

pip() { /tmp/pip/bin/pip --disable-pip-version-check --quiet --python "$python" "$@"; }

locked() { pip install --no-deps --no-compile "$@"; }

# What runs a component's body in KFP is of the standard library; the rest of kfp's needs stay out.
executor() { locked "$(grep '^kfp==' requirements/pipeline.txt)"; }

torch() {
  wanted=$(grep '^torch==' requirements/train.txt)
  case "$VARIANT" in
    cpu) locked ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$wanted" ;;
    cuda) pip install --no-compile --constraint requirements/local.txt "$wanted" ;; # with the CUDA libraries it names
    *) echo "VARIANT: expected cpu or cuda, found '$VARIANT'" >&2; exit 2 ;;
  esac
}

# For an object store: URL#SHA-256 of each jar, with commas between; which ones, understudy/spark_settings.py says.
spark_jars() {
  "$python" - "${SPARK_JARS:-}" <<'PY'
import hashlib, importlib.util, pathlib, sys, urllib.request

folder = pathlib.Path(importlib.util.find_spec("pyspark").origin).parent / "jars"
for one in sys.argv[1].replace(",", " ").split():
    url, _, wanted = one.partition("#")
    data = urllib.request.urlopen(url).read()
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        sys.exit(f"SPARK_JARS: expected {url}#{found}, found #{wanted}")
    (folder / url.rpartition("/")[2]).write_bytes(data)
PY
}

# Feast imports it; serving does not.
without_arrow_flight() { rm -f /opt/venv/lib/python3*/site-packages/pyarrow/*flight*; }

# Tests, headers and symbols that no step reads; numpy.testing imports numpy's own tests.
lean() {
  (
    cd /opt/venv/lib/python3*/site-packages
    for one in dask matplotlib numpy pandas pyarrow scipy sklearn statsmodels; do
      if [ -d "$one" ]; then find "$one" -type d -name tests ! -path 'numpy/_core/*' -prune -exec rm -rf {} +; fi
    done
    rm -rf pyarrow/include torch/include onnxruntime/transformers onnxruntime/quantization onnxruntime/tools
    # AWS' descriptions of its services, but for those that reach an object store and its keys.
    if [ -d botocore/data ]; then
      find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sso ! -name sso-oidc ! -name sts -exec rm -rf {} +
    fi
    rm -f onnxruntime/capi/libonnxruntime.so.* # for C; Python's module holds a copy of its own
    # Not what auditwheel moved into *.libs, which would no longer load, nor what holds code for GPUs.
    [ "$VARIANT" = cuda ] ||
      find . -name '*.so*' -type f ! -path './*.libs/*' -exec strip --strip-unneeded {} + 2>/dev/null || true
  )
}

# By a hash that is never checked: no look at the sources at start, no times in the image.
compiled() { "$python" -m compileall -qq -j 0 --invalidation-mode unchecked-hash "$1" || true; }

case "${1:-}" in
  builder | packages | code | runtime | imports | extras) "$1" ;;
  *) echo "expected builder, packages, code, runtime, imports or extras, found '${1:-}'" >&2; exit 2 ;;
esac
