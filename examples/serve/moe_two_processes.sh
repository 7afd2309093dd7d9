#!/bin/sh
# A mixture of experts over two processes: each attends to its own requests with a cache of its own, and holds
# half of the experts of every layer; rows travel to the owner of their expert (ep=2). Answers are those of one
# process, bit for bit. A process that dies is replaced, and no request is lost.
#
#   examples/serve/moe_two_processes.sh DIR                   # Mixtral, Qwen3-MoE, or one that `tessera train` made
#
# Instead of ep=2: tp=2 cuts every matrix, pp=2 gives each process half of the layers.
model=${1:?which model? give the Hugging Face directory of a model with experts}
shift
exec "${TESSERA:-build/release/tessera}" serve --model "$model" --layout ep=2 "$@"
