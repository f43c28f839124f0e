#include "service/ending.h"

#include "core/log.h"

#include <rpcrew/impl/message.h>

#include <time.h>

const char *crew_ending_name(crew_ending ending)
{
    static const char *const names[] = { [CREW_ENDED_RESULT] = "result",
                                         [CREW_ENDED_ERROR] = "error",
                                         [CREW_ENDED_FAILED] = "failed",
                                         [CREW_ENDED_BAD_PARAMS] = "bad_params",
                                         [CREW_ENDED_UNKNOWN_METHOD] = "unknown_method",
                                         [CREW_ENDED_UNDECODABLE] = "undecodable",
                                         [CREW_ENDED_SHED] = "shed",
                                         [CREW_ENDED_EXPIRED] = "expired",
                                         [CREW_ENDED_CANCELLED] = "cancelled" };
    return (size_t)ending < sizeof names / sizeof *names ? names[ending] : "unknown";
}

int64_t crew_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

void crew_ending_of(const crew_call *call, crew_call_end *end)
{
    const struct crew_call_group *group = call->group;
    *end = (crew_call_end){ .method = call->wire->method,
                            .known = call->entry != NULL,
                            .ending = call->ending,
                            .code = call->code,
                            .message = call->message,
                            .reason = call->reason,
                            .id = call->wire->one_way ? (crew_string){ 0 } : call->wire->id,
                            .peer = crew_call_peer_name(call),
                            .endpoint = "",
                            .protocol = group->protocol->name,
                            .one_way = crew_call_is_one_way(call),
                            .deferred = call->deferred,
                            .bytes_out = call->reply->size,
                            .started_ns = call->started_ns };
}

/* Who asked for what, and why it went wrong. */
static void begin_line(struct crew_line *line, const crew_call_end *end)
{
    crew_line_text(line, "method", end->method);
    crew_line_text(line, "reason", crew_str(end->reason));
    crew_line_text(line, "error", end->message);
    crew_line_text(line, "peer", crew_str(end->peer));
    crew_line_text(line, "endpoint", crew_str(end->endpoint));
}

static void log_rated(struct crew_rate *rate, crew_log_level level, const char *event,
                      const crew_call_end *end)
{
    struct crew_line line = { 0 };
    unsigned left_out;
    if (!crew_log_enabled(level) || !crew_rate_allows(rate, &left_out))
        return;
    begin_line(&line, end);
    if (left_out)
        crew_line_number(&line, "left_out", left_out);
    crew_line_log(&line, level, event);
}

static void log_single(const crew_call_end *end)
{
    struct crew_line line = { 0 };
    if (!crew_log_enabled(CREW_LOG_DEBUG))
        return;
    begin_line(&line, end);
    crew_line_text(&line, "ending", crew_str(crew_ending_name(end->ending)));
    crew_line_number(&line, "code", end->code);
    crew_line_text(&line, "id", end->id);
    if (end->received_ns)
        crew_line_number(&line, "us", (end->ended_ns - end->received_ns) / 1000);
    crew_line_log(&line, CREW_LOG_DEBUG, "call");
}

void crew_ending_log(const crew_call_end *end)
{
    static struct crew_rate failed, unknown, undecodable, not_run;
    switch (end->ending) {
    case CREW_ENDED_FAILED: log_rated(&failed, CREW_LOG_ERROR, "a call failed", end); break;
    case CREW_ENDED_UNKNOWN_METHOD: log_rated(&unknown, CREW_LOG_WARN, "there is no such method", end); break;
    case CREW_ENDED_UNDECODABLE:
        log_rated(&undecodable, CREW_LOG_WARN, "a request cannot be read", end);
        break;
    case CREW_ENDED_SHED:
    case CREW_ENDED_EXPIRED: log_rated(&not_run, CREW_LOG_WARN, "a call was not run", end); break;
    default: break;
    }
    log_single(end);
}

void crew_ending_log_twice(const crew_call *call)
{
    static struct crew_rate twice;
    crew_call_end end;
    crew_ending_of(call, &end);
    end.reason = "completed twice";
    log_rated(&twice, CREW_LOG_ERROR, "a handler completes its call once more", &end);
}
