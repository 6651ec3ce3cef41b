-- tools/call requests that differ in their ids; arguments after "--" are further header lines.
-- Ids have a fixed number of digits, so that each request is two joins and not a formatting job.

local before, after
local id = 100000000

function init(arguments)
  local body = '{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"search_documents",'
    .. '"arguments":{"query":"quarterly revenue by region","limit":10,"offset":0,"language":"en"},'
    .. '"_meta":{"progressToken":"b7d3f0a2-55c1-4b1e-9f6e-2f1f0c9a7e11"}}}'
  local mark = body:find("%%s")
  local head = {
    "POST " .. wrk.path .. " HTTP/1.1",
    "Host: " .. wrk.host .. ":" .. wrk.port,
    "Content-Type: application/json",
    "Accept: application/json, text/event-stream",
    "Content-Length: " .. (#body - 2 + #tostring(id)),
  }
  for _, line in ipairs(arguments) do
    head[#head + 1] = line
  end
  before = table.concat(head, "\r\n") .. "\r\n\r\n" .. body:sub(1, mark - 1)
  after = body:sub(mark + 2)
end

function request()
  id = id + 1
  return before .. id .. after
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  local p50, p99 = latency:percentile(50), latency:percentile(99)
  print(string.format("measured %d %d %d %.0f %.0f", summary.requests, summary.duration, failed, p50, p99))
end
