#!/usr/bin/env bash
# Run some of the tests on every supported Python, with the oldest TensorFlow and
# Keras that setup.cfg allows and with the newest, each in a virtual environment of its
# own in .venv-matrix. A Python that is not installed is skipped.
#
#     tools/test_matrix.sh                # all of them
#     tools/test_matrix.sh 3.10           # one Python
#     TESTS="tests/scales" tools/test_matrix.sh
set -uo pipefail
cd "$(dirname "$0")/.."

export TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow
PYTHONS=("$@")
if [ ${#PYTHONS[@]} -eq 0 ]; then PYTHONS=(3.10 3.11 3.12); fi
TESTS=${TESTS:-tests/test_keras_private.py tests/layers tests/network tests/training/test_saving.py}
OTHERS=(pytest scikit-learn matplotlib "tensorflow-probability[tf]>=0.25")

declare -A PINS=(
    [oldest]="tensorflow==2.18.* keras==3.10.*"
    [newest]="tensorflow keras"
)
RESULTS=()
FAILED=0

# The interpreter of a version: on the path, or of pyenv.
find_python() {
    local found
    for found in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
        if "$found" -c 'import venv' 2> /dev/null; then
            echo "$found"
            return
        fi
    done
}

for version in "${PYTHONS[@]}"; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        RESULTS+=("$version|-|-|-|skipped: no Python $version here")
        continue
    fi
    for which in oldest newest; do
        environment=.venv-matrix/$version-$which
        bin=$environment/bin
        if [ ! -e "$environment/.installed" ]; then
            # shellcheck disable=SC2086
            "$python" -m venv "$environment" &&
                "$bin/python" -m pip install --quiet ${PINS[$which]} "${OTHERS[@]}" &&
                touch "$environment/.installed"
        fi
        if [ ! -e "$environment/.installed" ]; then
            RESULTS+=("$version|$which|-|-|not installed")
            FAILED=1
            continue
        fi
        versions=$("$bin/python" -c 'import importlib.metadata as m
print(m.version("tensorflow"), m.version("keras"), sep="|")')
        # shellcheck disable=SC2086
        if "$bin/python" -m pytest -p no:cacheprovider $TESTS; then
            RESULTS+=("$version|$which|$versions|passed")
        else
            RESULTS+=("$version|$which|$versions|FAILED")
            FAILED=1
        fi
    done
done

printf '\n%-8s%-8s%-12s%-8s%s\n' Python which TensorFlow Keras result
for result in "${RESULTS[@]}"; do
    IFS='|' read -r version which tensorflow keras outcome <<< "$result"
    printf '%-8s%-8s%-12s%-8s%s\n' \
        "$version" "$which" "$tensorflow" "$keras" "$outcome"
done
exit $FAILED
