#!/usr/bin/env bash
# A three-node decree cluster of real processes on loopback, to try and to break.
# Kills only processes that it started: each pid file is checked against the
# command line of the process.
set -euo pipefail

usage() {
  cat <<'TXT'
Usage: scripts/cluster.sh [-d DIR] [-p PORT] COMMAND

  start          start n1, n2 and n3, and wait until one leads
  stop           stop all nodes gracefully; their data stays
  status         show the cluster, and the processes
  kill-leader    kill -9 the leader
  pause-leader   stop the leader with SIGSTOP, as a hung machine would
  resume         let paused nodes go on
  restart NODE   stop the node, if it runs, and start it again on its data
  logs [NODE]    follow the logs

  -d DIR    keep data, logs and pid files here (default: data)
  -p PORT   serve gRPC at PORT+1 to PORT+3, HTTP at PORT+101 to PORT+103, and
            Raft at PORT+201 to PORT+203 (default: 7100; kept in DIR)

bin/decree is built when it is not there; DECREE_BIN names another binary.
TXT
}

fail() { printf 'cluster.sh: %s\n' "$*" >&2; exit 1; }

top=$(cd "$(dirname "$0")/.." && pwd)
dir=$top/data
port=
while getopts 'd:p:h' option; do
  case $option in
    d) dir=$OPTARG ;;
    p) port=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || { usage >&2; exit 2; }
command=$1
shift

bin=${DECREE_BIN:-$top/bin/decree}
unset DECREE_BIN # else the server would take it for a setting
nodes=(n1 n2 n3)

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
[ -n "$port" ] || { [ ! -f "$dir/port" ] || port=$(<"$dir/port"); }
port=${port:-7100}
[[ $port =~ ^[1-9][0-9]{0,4}$ && $port -lt 65000 ]] || fail "port $port: want a number below 65000"

number() { printf '%s' "${1#n}"; }
grpc_of() { printf '127.0.0.1:%d' $((port + $(number "$1"))); }
http_of() { printf '127.0.0.1:%d' $((port + 100 + $(number "$1"))); }
raft_of() { printf '127.0.0.1:%d' $((port + 200 + $(number "$1"))); }
operator_of() { printf '127.0.0.1:%d' $((port + 400 + $(number "$1"))); }
endpoints=$(grpc_of n1),$(grpc_of n2),$(grpc_of n3)
peers=n1=$(raft_of n1),n2=$(raft_of n2),n3=$(raft_of n3)

known() {
  local node
  for node in "${nodes[@]}"; do [ "$node" != "$1" ] || return 0; done
  fail "there is no node $1; there are ${nodes[*]}"
}

# pid_of prints the pid of a running node. A pid file may be stale and its number
# in use by another program, so the command line must name the node's data.
pid_of() {
  local pid
  [ -f "$dir/$1.pid" ] && pid=$(<"$dir/$1.pid") || return 1
  case " $(ps -o args= -p "$pid" 2>/dev/null) " in
    *" --data-dir $dir/$1 "*) printf '%s' "$pid" ;;
    *) return 1 ;;
  esac
}

# alive tells a running process from none, and from one that has ended and that
# its parent has not noticed yet.
alive() { [[ $(ps -o state= -p "$1" 2>/dev/null) == [!Z]* ]]; }

paused() { [[ $(ps -o state= -p "$1" 2>/dev/null) == *T* ]]; }

launch() {
  local node=$1
  nohup "$bin" server --node-id "$node" --data-dir "$dir/$node" --peers "$peers" \
    --raft-addr "$(raft_of "$node")" --grpc-addr "$(grpc_of "$node")" --http-addr "$(http_of "$node")" \
    --operator-addr "$(operator_of "$node")" \
    >>"$dir/$node.log" 2>&1 </dev/null &
  printf '%d\n' $! >"$dir/$node.pid"
  # Until the process has become the server, pid_of does not know it.
  until pid_of "$node" >/dev/null || ! alive $!; do sleep 0.01; done
}

# gone waits until a process has ended, for at most the given seconds.
gone() {
  local tries=$(($2 * 50))
  while alive "$1"; do
    [ $((tries--)) -gt 0 ] || return 1
    sleep 0.02
  done
}

# halt stops nodes gracefully, side by side, and after a while not so.
halt() {
  local node pid
  for node in "$@"; do
    pid=$(pid_of "$node") || continue
    kill -TERM "$pid"
    kill -CONT "$pid"
  done
  for node in "$@"; do
    if pid=$(pid_of "$node") && ! gone "$pid" 15; then
      kill -KILL "$pid"
      gone "$pid" 5 || fail "$node (pid $pid) does not end"
    fi
    rm -f "$dir/$node.pid"
  done
}

# leader prints the leader's id, as the nodes at the given endpoints know it.
leader() { "$bin" cluster status --quiet --patience 2s --endpoints "$1" 2>/dev/null; }

# running_leader prints the id of a leader whose process runs. Followers name a
# dead leader until they have missed it.
running_leader() {
  local node _
  for _ in {1..100}; do
    if node=$(leader "$endpoints") && pid_of "$node" >/dev/null; then
      printf '%s' "$node"
      return
    fi
    sleep 0.1
  done
  fail 'no node leads; see cluster.sh status'
}

# await_leader waits until the nodes at the endpoints know a leader, and gives up
# when one of the nodes has ended. It prints the leader.
await_leader() {
  local node _ asked=$1
  shift
  for _ in {1..200}; do
    for node in "$@"; do
      pid_of "$node" >/dev/null || { tail -n 5 "$dir/$node.log" >&2; fail "$node has ended; its log is $dir/$node.log"; }
    done
    if node=$(leader "$asked"); then
      printf '%s leads\n' "$node"
      return
    fi
    sleep 0.1
  done
  fail "no node leads; the logs are $dir/n*.log"
}

start() {
  local node pid
  for node in "${nodes[@]}"; do
    if pid=$(pid_of "$node"); then fail "$node runs already (pid $pid); stop first"; fi
  done
  printf '%d\n' "$port" >"$dir/port"
  for node in "${nodes[@]}"; do launch "$node"; done
  await_leader "$endpoints" "${nodes[@]}"
  printf 'gRPC   %s\nHTTP   http://%s http://%s http://%s\ndata   %s\n' "$endpoints" \
    "$(http_of n1)" "$(http_of n2)" "$(http_of n3)" "$dir"
  [ "$port" = 7100 ] || printf 'set    export DECREE_ENDPOINTS=%s\n' "$endpoints"
}

stop() {
  halt "${nodes[@]}"
  echo 'stopped'
}

status() {
  local node pid state code=0
  "$bin" cluster status --patience 3s --endpoints "$endpoints" || code=$?
  printf '\n'
  for node in "${nodes[@]}"; do
    if pid=$(pid_of "$node"); then
      state=running
      ! paused "$pid" || state=paused
      printf '%s  %s, pid %s\n' "$node" "$state" "$pid"
    else
      printf '%s  not running\n' "$node"
    fi
  done
  return "$code"
}

kill_leader() {
  local node pid
  node=$(running_leader)
  pid=$(pid_of "$node")
  kill -KILL "$pid"
  gone "$pid" 5 || fail "$node (pid $pid) does not end"
  rm -f "$dir/$node.pid"
  printf 'killed %s (pid %s); bring it back with: cluster.sh restart %s\n' "$node" "$pid" "$node"
}

pause_leader() {
  local node pid
  node=$(running_leader)
  pid=$(pid_of "$node")
  kill -STOP "$pid"
  printf 'paused %s (pid %s); let it go on with: cluster.sh resume\n' "$node" "$pid"
}

resume() {
  local node pid any=no
  for node in "${nodes[@]}"; do
    if pid=$(pid_of "$node") && paused "$pid"; then
      kill -CONT "$pid"
      printf 'resumed %s (pid %s)\n' "$node" "$pid"
      any=yes
    fi
  done
  [ "$any" = yes ] || echo 'no node is paused'
}

restart() {
  known "$1"
  halt "$1"
  launch "$1"
  await_leader "$(grpc_of "$1")" "$1"
}

logs() {
  local node files=()
  [ $# = 0 ] || known "$1"
  for node in "${@:-${nodes[@]}}"; do files+=("$dir/$node.log"); done
  exec tail -n 20 -F "${files[@]}"
}

[ -x "$bin" ] || make -C "$top" --no-print-directory build
case $command in
  start) start ;;
  stop) stop ;;
  status) status ;;
  kill-leader) kill_leader ;;
  pause-leader) pause_leader ;;
  resume) resume ;;
  restart) [ $# = 1 ] || fail 'restart which node?'; restart "$1" ;;
  logs) logs "$@" ;;
  *) usage >&2; exit 2 ;;
esac
