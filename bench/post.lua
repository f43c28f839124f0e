-- For wrk: the call of all our benches, by POST; prints what `rpcrew bench --json` prints.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"jsonrpc":"2.0","method":"subtract","params":[42,23],"id":1}'

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format('\n{"calls":%d,"errors":%d,"calls_per_s":%.1f,"p50_us":%d,"p99_us":%d}\n', summary.requests,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        summary.requests / summary.duration * 1e6, latency:percentile(50), latency:percentile(99)))
end
