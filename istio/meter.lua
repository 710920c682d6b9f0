-- llm.meter: notes what an answer used while it streams by, and tells the client its budget.
--
-- An Envoy Lua filter between `llm.policy` and the router. It reads what the policy filter said of
-- the request (dynamic metadata, namespace `llm`) and writes there, for the access log:
--
--   usage, usage_start   the provider's own usage object, its JSON text as it came
--   events, bytes        how many events carried output so far, and how long the body was
--   prompt_tokens_used, completion_tokens_used, total_tokens_used, tokens_per_second
--   meter_error          why it gave up, in a word; what it noted before stays
--
-- Rules:
--   1. No byte is held or changed, but for `strip_usage` (see "Cutting" below).
--   2. Only these paths of a JSON text are usage: `usage`, and in an event also `response.usage`
--      and `message.usage`. What merely looks like it, in a string or deeper down, is not.
--   3. How the bytes are cut into chunks makes no difference to what is noted in the end.
--   4. Memory and work have limits, below. Beyond them it stops noting, never the answer.
--   5. No error leaves a handler.
--
-- extproc/llm/sse.py is the same meter in Python; one table of answers tests both.

local NAMESPACE = "llm"

-- The keys of PATHS in extproc/llm/dialects.py.
local LLM_PATHS = {
  ["/v1/chat/completions"] = true,
  ["/v1/chat"] = true,
  ["/v1/completions"] = true,
  ["/v1/embeddings"] = true,
  ["/v1/responses"] = true,
  ["/v1/messages"] = true,
  ["/v1/messages/count_tokens"] = true,
}

-- Of an event that is split over chunks, so much is kept; what is longer is read as it comes, and
-- whether it carried output is told from so much of it.
local EVENT_BYTES_MAX = 16384
-- A usage object that is longer is none.
local USAGE_BYTES_MAX = 4096
-- Steps from one quote or bracket to the next, in a whole answer: a tenth of a second or two.
local HOPS_MAX = 2097152
-- A chunk is read in slices of so much.
local SLICE_BYTES = 65536
-- Metadata is not set at every chunk, which would cost half as much again as the chunk itself, but
-- at the first, second, fourth, ... and then whenever so many have come: an answer that is broken
-- off is charged by what was noted last.
local CHUNKS_BETWEEN_NOTES = 16
-- A provider that claims more tokens is not believed (extproc/llm/usage.py).
local TOKENS_MAX = 2147483648
-- No key that matters is longer: `response`.
local KEY_BYTES_MAX = 8

local byte, find, format, match, sub = string.byte, string.find, string.format, string.match, string.sub
local max, floor, ceil = math.max, math.floor, math.ceil
local concat = table.concat

local BYTE_ORDER_MARK = "\239\187\191"
local LF, CR, QUOTE, BACKSLASH, COLON = 10, 13, 34, 92, 58
local OPEN_BRACE, OPEN_BRACKET = 123, 91

local function give_up(meter, word)
  meter.error = meter.error or word
end

---------------------------------------------------------------------------------------------------
-- JSON: hops from quote to bracket to quote, and takes only the value of a usage key.
--
-- Within one object, a string that is followed by `{` before any other quote or bracket is a key,
-- and `{` begins its value: this needs no look at commas and colons.
---------------------------------------------------------------------------------------------------

local function new_json(is_event)
  return {
    is_event = is_event,
    depth = 0,
    in_object = false, -- whether the outermost value is an object
    parent = nil, -- `response` or `message`, while inside that
    in_string = false,
    is_escaped = false, -- whether the next byte of the string is
    key = nil, -- how the string begins, where it may be a key that matters
    last = nil, -- the string before, where it may be such a key
    taking = nil, -- the usage object that is being read
    has_usage = false,
    choices = nil, -- the array of that name: `open`, then `empty` or `full`
    is_whole = false, -- whether a value has ended
  }
end

-- Reads on in a string, from `pos`. Returns where to go on.
local function read_string(json, text, pos)
  local quote = find(text, '"', pos, true)
  local last = quote and quote - 1 or #text
  local key = json.key
  if key and #key <= KEY_BYTES_MAX then
    key = key .. sub(text, pos, math.min(last, pos + KEY_BYTES_MAX))
    json.key = key
  end
  local run = last
  while run >= pos and byte(text, run) == BACKSLASH do
    run = run - 1
  end
  local is_escaped = (last - run) % 2 == 1
  if run < pos and json.is_escaped then
    is_escaped = not is_escaped
  end
  if not quote then
    json.is_escaped = is_escaped
    return #text + 1
  end
  json.is_escaped = false
  if not is_escaped then
    json.in_string = false
    json.last, json.key = key, nil
  end
  return quote + 1
end

local function begin_string(json)
  local depth = json.depth
  json.in_string = true
  json.key = ((depth == 1 and json.in_object) or (depth == 2 and json.parent)) and "" or nil
  if json.choices == "open" then
    json.choices = "full"
  end
end

-- Returns the field that a usage object beginning here belongs to, if one does.
local function begin_value(json, is_object)
  local depth, last, parent = json.depth + 1, json.last, json.parent
  json.depth, json.last = depth, nil
  if json.choices == "open" then
    json.choices = "full"
  end
  if depth == 1 then
    json.in_object = is_object
  elseif last == nil then
    return nil
  elseif not is_object then
    if depth == 2 and last == "choices" then
      json.choices = "open"
    end
  elseif last == "usage" then
    return parent == "message" and "usage_start" or "usage"
  elseif depth == 2 and json.is_event and (last == "response" or last == "message") then
    json.parent = last
  end
  return nil
end

local function end_value(json)
  json.depth = max(json.depth - 1, 0)
  if json.choices == "open" then
    json.choices = "empty"
  end
  if json.depth <= 1 then
    json.parent = nil
  end
  json.is_whole = json.is_whole or json.depth == 0
end

local function keep(meter, json, text)
  local taking = json.taking
  taking.text = taking.text .. text
  if #taking.text > USAGE_BYTES_MAX then
    json.taking = nil
    give_up(meter, "usage_too_long")
  end
end

-- A usage object is whole. Metadata must be UTF-8, or Envoy logs none of it.
local function note_usage(meter, json)
  local taking = json.taking
  json.taking = nil
  if find(taking.text, "[^\t\n\r -~]") then
    give_up(meter, "usage_garbled")
  else
    meter[taking.field] = taking.text
    meter.has_news = true
    json.has_usage = true
  end
end

-- Reads the next piece of a JSON text.
local function read_json(meter, json, text)
  local pos, size = 1, #text
  local taken = 1 -- up to where an object that is being taken has been kept
  while pos <= size and not meter.is_tired do
    meter.hops = meter.hops + 1
    if meter.hops > HOPS_MAX then
      meter.is_tired = true
      give_up(meter, "too_complex")
      return
    end
    if json.in_string then
      pos = read_string(json, text, pos)
    else
      local at = find(text, '["%[%]{}]', pos)
      if not at then
        break
      end
      local mark = byte(text, at)
      if mark == QUOTE then
        begin_string(json)
      elseif mark == OPEN_BRACE or mark == OPEN_BRACKET then
        local field = begin_value(json, mark == OPEN_BRACE)
        if field then
          json.taking = { field = field, text = "", depth = json.depth - 1 }
          taken = at
        end
      else
        end_value(json)
        if json.taking and json.depth <= json.taking.depth then
          keep(meter, json, sub(text, taken, at))
          if json.taking then
            note_usage(meter, json)
          end
        end
      end
      pos = at + 1
    end
  end
  if json.taking then
    keep(meter, json, sub(text, taken))
  end
end

---------------------------------------------------------------------------------------------------
-- Events. A block is what a blank line ends, or one line of comment.
---------------------------------------------------------------------------------------------------

-- Feeds the data lines of a block to its scanner, from `pos` in this piece of it. Returns the
-- position after the blank line that ends the block, or nil when that has not come.
local function read_lines(meter, lines, text, pos)
  -- A class is much slower to find than a byte.
  local line_end = find(text, "\r", pos, true) and "[\r\n]" or "\n"
  local size = #text
  while pos <= size do
    if lines.after_cr and byte(text, pos) == LF then
      lines.after_cr = false
      pos = pos + 1
    else
      lines.after_cr = false
      local stop = find(text, line_end, pos)
      local last = stop and stop - 1 or size
      if #lines.head < 5 then -- the beginning of a line tells whether it is data
        local rest = pos + 5 - #lines.head
        lines.head = lines.head .. sub(text, pos, math.min(last, rest - 1))
        pos = rest
      end
      if lines.head == "data:" and pos <= last then
        read_json(meter, lines.json, sub(text, pos, last))
      end
      if not stop then
        return nil
      end
      if lines.head == "" then
        return stop + 1
      end
      if lines.head == "data:" then
        read_json(meter, lines.json, "\n")
      end
      lines.head = ""
      lines.after_cr = byte(text, stop) == CR
      pos = stop + 1
    end
  end
  return nil
end

local function new_lines()
  return { head = "", after_cr = false, json = new_json(true) }
end

-- Whether an event carries output, which is about a token:
--   chat                "delta": {"...       role and content; not the empty one at the end
--   Responses           "delta": "...        text, arguments, reasoning: every type `*.delta`
--   Anthropic           "delta": {"...       content_block_delta; not message_delta
--   completions         "choices": [ ... "text": "...
-- A quote inside a string is escaped, so no text of a model or client looks like this.
local function carries_output(block)
  local at = find(block, '"delta"', 1, true)
  if at then
    return (find(block, '"delta"%s*:%s*{%s*"', at) or find(block, '"delta"%s*:%s*"[^"]', at))
      and not find(block, '"type"%s*:%s*"message_delta"')
  end
  at = find(block, '"text"', 1, true)
  return at and find(block, '"text"%s*:%s*"[^"]', at) and find(block, '"choices"%s*:%s*%[')
end

-- Whether the text has a usage key whose value is something; `null` is in every event of a stream
-- that will end with usage.
local function may_have_usage(block)
  local at = find(block, '"usage"', 1, true)
  while at do
    if not find(block, "^%s*:%s*null", at + 7) then
      return true
    end
    at = find(block, '"usage"', at + 7, true)
  end
  return false
end

local function count_output(meter, block)
  if carries_output(sub(block, 1, EVENT_BYTES_MAX)) then
    meter.events = meter.events + 1
  end
end

-- Meters a block. Returns the scanner if it was read.
local function take_block(meter, block)
  if byte(block, 1) == COLON then
    return nil
  end
  count_output(meter, block)
  if meter.is_tired or not may_have_usage(block) then
    return nil
  end
  local lines = new_lines()
  read_lines(meter, lines, block, 1)
  return lines.json
end

-- Returns the last byte of the block that begins at `pos`, blank line included, or nil. No blank
-- line begins before `from`.
local function block_end(text, pos, from, has_cr)
  if byte(text, pos) == COLON then
    return (find(text, "[\r\n]", pos))
  end
  if not has_cr then
    local _, stop = find(text, "\n\n", from, true)
    return stop
  end
  local at = find(text, "[\r\n]", from)
  while at do
    if byte(text, at) == CR and byte(text, at + 1) == LF then
      at = at + 1
    end
    local following = byte(text, at + 1)
    if following == LF then
      return at + 1
    elseif following == CR then
      return byte(text, at + 2) == LF and at + 2 or at + 1
    end
    at = find(text, "[\r\n]", at + 1)
  end
  return nil
end

---------------------------------------------------------------------------------------------------
-- Cutting. Where our service asked for usage and the client did not (`strip_usage`), the event that
-- has it and no choices is taken out: a client that reads `choices[0]` of every event would fail.
--
-- Only the beginning of an event that may yet turn out to be that one is held back: until its first
-- choice is seen, or its JSON has ended. An answer that ends within it is given what was held,
-- with the empty chunk that Envoy ends it with. Where none comes (the end came with the last bytes,
-- or as trailers) what is lost is a piece of JSON without its end, which no client can read.
---------------------------------------------------------------------------------------------------

local function is_extra(json)
  return json and json.has_usage and json.choices == "empty"
end

-- Reads the beginning of a block that is read again when it is whole, and only then counts.
local function look_at(meter, tail)
  local trial, lines = { hops = meter.hops }, new_lines()
  read_lines(trial, lines, tail, 1)
  meter.hops = trial.hops
  return lines.json
end

local function may_become_extra(meter, tail)
  if byte(tail, 1) == COLON or meter.is_tired then
    return false
  end
  local json = look_at(meter, tail)
  return is_extra(json) or not (json.is_whole or json.choices == "full")
end

local function pass(meter, text, first, last)
  if meter.cuts and first <= last then
    meter.out[#meter.out + 1] = sub(text, first, last)
  end
end

local function pass_tail(meter)
  pass(meter, meter.tail, meter.passed + 1, #meter.tail)
  meter.passed = #meter.tail
end

---------------------------------------------------------------------------------------------------
-- The meter.
---------------------------------------------------------------------------------------------------

local function new_meter(kind, cuts)
  return {
    kind = kind, -- `events`, `json` or `encoded`
    bytes = 0,
    events = 0,
    hops = 0,
    is_tired = false,
    usage = nil,
    usage_start = nil,
    error = kind == "encoded" and "encoded" or nil,
    has_news = false,
    json = kind == "json" and new_json(false) or nil,
    is_begun = false,
    tail = "", -- the beginning of a block
    long = nil, -- instead, the lines of one that is too long to keep
    cuts = cuts,
    passed = 0, -- how much of the tail the client has
    drops_lf = false,
    out = nil,
  }
end

local function keep_tail(meter, tail)
  meter.tail = tail
  if byte(tail, 1) == COLON then
    pass_tail(meter)
    meter.tail, meter.passed = ":", 1 -- what a comment says does not matter
  elseif #tail > EVENT_BYTES_MAX then
    pass_tail(meter)
    count_output(meter, tail)
    meter.long, meter.tail, meter.passed = new_lines(), "", 0
    read_lines(meter, meter.long, tail, 1)
  elseif meter.cuts and tail ~= "" and (meter.passed > 0 or not may_become_extra(meter, tail)) then
    pass_tail(meter)
  end
end

local function take_events(meter, text)
  local pos = 1
  if meter.long then
    pos = read_lines(meter, meter.long, text, 1)
    pass(meter, text, 1, (pos or #text + 1) - 1)
    if not pos then
      return
    end
    meter.long = nil
  end
  -- What was searched in vain is not searched again, but for a first line end.
  local from = #meter.tail
  text = meter.tail .. text
  meter.tail = ""
  if not meter.is_begun then
    if #text < #BYTE_ORDER_MARK and sub(BYTE_ORDER_MARK, 1, #text) == text then
      meter.tail = text
      return
    end
    meter.is_begun = true
    if sub(text, 1, #BYTE_ORDER_MARK) == BYTE_ORDER_MARK then
      pos = #BYTE_ORDER_MARK + 1
      pass(meter, text, meter.passed + 1, pos - 1)
      meter.passed = 0
    end
  end
  local has_cr = find(text, "\r", pos, true)
  while true do
    local start = find(text, "[^\r\n]", pos) or #text + 1
    pass(meter, text, pos, start - 1)
    local stop = block_end(text, start, max(from, start), has_cr)
    if not stop then
      keep_tail(meter, sub(text, start))
      return
    end
    local json = take_block(meter, sub(text, start, stop))
    if meter.cuts and meter.passed == 0 and stop - start < EVENT_BYTES_MAX and is_extra(json) then
      meter.drops_lf = stop == #text and byte(text, stop) == CR
    else
      pass(meter, text, start + meter.passed, stop)
    end
    meter.passed = 0
    pos = stop + 1
  end
end

-- The answer ended, maybe without a blank line.
local function take_rest(meter)
  local tail = meter.tail
  meter.tail = ""
  if tail ~= "" and not is_extra(take_block(meter, tail)) and meter.cuts and #tail > meter.passed then
    give_up(meter, "tail_lost")
  end
end

local function take_slice(meter, text)
  if meter.kind == "json" then
    read_json(meter, meter.json, text)
  elseif meter.kind == "events" then
    take_events(meter, text)
  end
end

-- Returns what the client is given for a chunk.
local function cut(meter, text)
  local is_empty = text == ""
  if meter.drops_lf and byte(text, 1) == LF then
    text = sub(text, 2)
  end
  meter.drops_lf = false
  meter.out = {}
  take_events(meter, text)
  if is_empty and not is_extra(look_at(meter, meter.tail)) then -- most likely the last chunk
    pass_tail(meter)
  end
  return concat(meter.out)
end

local function take_and_cut(meter, chunk, size)
  local given = chunk:getBytes(0, size)
  local held = sub(meter.tail, meter.passed + 1)
  local is_done, out = pcall(cut, meter, given)
  if not is_done then
    chunk:setBytes(held .. given)
    error(out, 0)
  elseif out ~= given then
    chunk:setBytes(out)
  end
end

local function take(meter, chunk)
  local size = chunk:length()
  if meter.cuts then
    take_and_cut(meter, chunk, size)
  elseif meter.kind ~= "encoded" then
    for at = 0, size - 1, SLICE_BYTES do
      take_slice(meter, chunk:getBytes(at, math.min(SLICE_BYTES, size - at)))
    end
  end
end

-- Objects of a stream are dead after each chunk, so this one is asked for anew.
local function metadata_of(handle)
  return handle:streamInfo():dynamicMetadata()
end

local function note(handle, meter)
  local metadata = metadata_of(handle)
  metadata:set(NAMESPACE, "bytes", meter.bytes)
  metadata:set(NAMESPACE, "events", meter.events)
  for _, field in ipairs({ "usage_start", "usage" }) do
    if meter[field] then
      metadata:set(NAMESPACE, field, meter[field])
    end
  end
  if meter.error then
    metadata:set(NAMESPACE, "meter_error", meter.error)
  end
end

local function count_of(flat, name)
  local digits = match(flat, '"' .. name .. '"%s*:%s*(%d+)')
  local count = digits and tonumber(digits)
  return count and count <= TOKENS_MAX and count or nil
end

-- The numbers of the outermost object; what is nested counts parts of them.
local function counts_of(text)
  local flat = string.gsub(string.gsub(sub(text or "", 2, -2), "%b{}", ""), "%b[]", "")
  local prompt, completion = count_of(flat, "prompt_tokens"), count_of(flat, "completion_tokens")
  return {
    prompt = prompt or count_of(flat, "input_tokens"),
    completion = completion or count_of(flat, "output_tokens"),
    total = count_of(flat, "total_tokens"),
    cache_read = count_of(flat, "cache_read_input_tokens"),
    cache_write = count_of(flat, "cache_creation_input_tokens"),
  }
end

-- Notes numbers for the tags of a span. A budget is settled from the text.
local function note_numbers(handle, meter, milliseconds)
  local first, last = counts_of(meter.usage_start), counts_of(meter.usage)
  local function told(name)
    return last[name] or first[name]
  end
  local prompt, completion = told("prompt"), told("completion")
  if not (prompt or completion) then
    return
  end
  prompt = (prompt or 0) + (told("cache_read") or 0) + (told("cache_write") or 0)
  completion = completion or 0
  local metadata = metadata_of(handle)
  metadata:set(NAMESPACE, "prompt_tokens_used", prompt)
  metadata:set(NAMESPACE, "completion_tokens_used", completion)
  metadata:set(NAMESPACE, "total_tokens_used", told("total") or prompt + completion)
  -- An answer that is no stream was made before its first byte came: it has no speed here.
  if meter.kind == "events" and completion > 0 and milliseconds > 0 then
    local speed = floor(completion * 10000 / milliseconds + 0.5) / 10
    metadata:set(NAMESPACE, "tokens_per_second", speed)
  end
end

-- Calls a function that may have a bug. After the first, bytes are all that is counted.
local function attempt(handle, meter, act, ...)
  local is_done, problem = pcall(act, ...)
  if not is_done and not meter.is_broken then
    meter.is_broken = true
    give_up(meter, "bug")
    handle:logErr("llm.meter: " .. tostring(problem))
  end
end

local function meter_body(handle, meter)
  local chunks, noted_events, is_quiet = 0, 0, true
  local next_note = 1
  local began
  for chunk in handle:bodyChunks() do
    began = began or handle:timestamp()
    chunks = chunks + 1
    meter.bytes = meter.bytes + chunk:length()
    if not meter.is_broken then
      attempt(handle, meter, take, meter, chunk)
    end
    -- Where every event has usage (vLLM can do so), only the first is news.
    local is_news = meter.has_news and is_quiet
    is_quiet = not meter.has_news
    meter.has_news = false
    if is_news or chunks >= next_note or (noted_events == 0 and meter.events > 0) then
      next_note = math.min(chunks * 2, chunks + CHUNKS_BETWEEN_NOTES)
      noted_events = meter.events
      attempt(handle, meter, note, handle, meter)
    end
  end
  if not meter.is_broken then
    attempt(handle, meter, take_rest, meter)
  end
  attempt(handle, meter, note, handle, meter)
  attempt(handle, meter, note_numbers, handle, meter, handle:timestamp() - (began or 0))
end

---------------------------------------------------------------------------------------------------
-- Headers for the client: its budget as it was when the request was let in.
---------------------------------------------------------------------------------------------------

local function whole(number)
  return format("%.0f", number)
end

local function unit_of(known)
  if known.budget_unit == "concurrent_requests" then
    return ';qu="concurrent-requests"'
  elseif known.budget_unit == "tokens" then
    return ';llm-unit="tokens"'
  elseif known.budget_unit == "usd" then
    return ';llm-unit="micro-usd"'
  end
  return ""
end

-- The same as in extproc/exchange/answers.py, which a refusal has.
local function add_budget(headers, known)
  local name, limit, remaining = known.budget_policy, whole(known.budget_limit), whole(known.budget_remaining)
  local policy = '"' .. name .. '";q=' .. limit
  if known.budget_window then
    policy = policy .. ";w=" .. whole(known.budget_window)
  end
  local state = '"' .. name .. '";r=' .. remaining
  headers:replace("x-llm-budget-policy", name)
  headers:replace("x-llm-budget-limit", limit)
  headers:replace("x-llm-budget-remaining", remaining)
  if known.budget_reset then
    local reset = whole(ceil(known.budget_reset))
    headers:replace("x-llm-budget-reset", reset)
    state = state .. ";t=" .. reset
  end
  headers:replace("ratelimit-policy", policy .. unit_of(known))
  headers:replace("ratelimit", state)
end

-- Those that an upstream sent by these names are not ours.
local OUR_HEADERS = {
  "x-llm-tier",
  "x-llm-downgraded-from",
  "x-llm-fallback-from",
  "x-llm-budget-policy",
  "x-llm-budget-limit",
  "x-llm-budget-remaining",
  "x-llm-budget-reset",
  "x-llm-budget-state",
}

local function add_headers(headers, known)
  for _, name in ipairs(OUR_HEADERS) do
    headers:remove(name)
  end
  headers:replace("x-llm-tier", known.tier)
  if known.downgraded_from then
    headers:replace("x-llm-downgraded-from", known.downgraded_from)
  end
  if known.served_model and known.served_model ~= known.model then
    headers:replace("x-llm-fallback-from", known.model)
  end
  if known.budget_policy then
    add_budget(headers, known)
  end
  if known.budget_state then
    headers:replace("x-llm-budget-state", known.budget_state)
  end
end

---------------------------------------------------------------------------------------------------
-- What Envoy calls.
---------------------------------------------------------------------------------------------------

local function kind_of(headers)
  local encoding = string.lower(headers:get("content-encoding") or "identity")
  if not match(encoding, "^%s*identity%s*$") then
    return "encoded"
  end
  local is_events = match(string.lower(headers:get("content-type") or ""), "^%s*text/event%-stream")
  return is_events and "events" or "json"
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(":path")
  if not path or not LLM_PATHS[match(path, "^[^?]*")] or headers:get(":method") ~= "POST" then
    return
  end
  local known = metadata_of(handle):get(NAMESPACE)
  -- The policy filter is asked to fail closed; where an operator lets it fail open, the answer is
  -- metered all the same.
  if not (known and known.outcome) then
    metadata_of(handle):set(NAMESPACE, "unattributed", true)
  end
end

function envoy_on_response(handle)
  local known = metadata_of(handle):get(NAMESPACE)
  if not known or not (known.outcome == "routed" or known.unattributed == true) then
    return
  end
  local headers = handle:headers()
  local status, kind = headers:get(":status") or "", kind_of(headers)
  local meter = new_meter(kind, kind == "events" and known.strip_usage == true)
  if known.outcome == "routed" then
    attempt(handle, meter, add_headers, headers, known)
  end
  if not find(status, "^2") then
    return
  end
  if meter.cuts then
    headers:remove("content-length")
  end
  meter_body(handle, meter)
end
