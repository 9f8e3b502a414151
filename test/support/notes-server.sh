# An MCP server over stdio, in the shell that every sandbox has: `add` and `list` notes, and `look` around.
count=0
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
say() { answer "{\"content\":[{\"type\":\"text\",\"text\":\"$1\"}]}"; }
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\("[^"]*"\|[0-9]*\).*/\1/p')
  case $line in
    *'"initialize"'*)
      answer '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"notes","version":"1"}}' ;;
    *'"tools/list"'*)
      schema='"inputSchema":{"type":"object"}'
      answer "{\"tools\":[{\"name\":\"add\",$schema},{\"name\":\"list\",$schema},{\"name\":\"look\",$schema}]}" ;;
    *'"name":"add"'*)
      count=$((count + 1))
      say "noted $count" ;;
    *'"name":"list"'*)
      say "there are $count" ;;
    *'"name":"look"'*)
      socket=hidden
      test -e /run/claude/messages.sock && socket=seen
      say "args: $1 env: $NOTES_TOKEN key: $ANTHROPIC_API_KEY socket: $socket folder: $PWD" ;;
    *'"id":'*)
      printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"Method not found"}}\n' "$id" ;;
  esac
done
