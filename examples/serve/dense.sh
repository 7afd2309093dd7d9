#!/bin/sh
# A dense model behind OpenAI's interface, in one process.
#
#   examples/serve/dense.sh runs/quickstart/model            # a Hugging Face directory, or a GGUF file
#   curl http://127.0.0.1:8000/v1/completions -d '{"model": "model", "prompt": "Once upon a time"}'
#
# Words behind the model go to the server: --port 9000, --dtype bf16, --layout tp=2, ...
model=${1:?which model? give a Hugging Face directory or a GGUF file}
shift
exec "${TESSERA:-build/release/tessera}" serve --model "$model" --max-running 32 "$@"
