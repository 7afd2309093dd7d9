#!/bin/sh
# Prompts in one process, answers in another: a prefill worker computes prompts of 128 tokens and more, and sends
# their keys and values to the server, which decodes; long prompts do not hold up the answers under way. Answers are
# those of one process, bit for bit. While a worker is away the server computes prompts itself.
#
#   examples/serve/prefill_apart.sh DIR
#   curl http://127.0.0.1:8000/metrics | grep prefill         # prompts and bytes that came
model=${1:?which model? give a Hugging Face directory or a GGUF file}
shift
exec "${TESSERA:-build/release/tessera}" serve --model "$model" --prefill-workers 1 --prefill-from 128 "$@"
