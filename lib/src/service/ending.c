#include "service/ending.h"

#include "core/log.h"

#include <rpcrew/impl/message.h>

#include <inttypes.h>
#include <stdio.h>
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

/* MessagePack's ids are integers in their shortest form. */
static crew_string id_of(const crew_protocol *protocol, const crew_wire_call *wire, char text[CREW_ID_TEXT])
{
    uint64_t number = 0;
    const unsigned char *bytes = (const unsigned char *)wire->id.data;
    if (wire->one_way || !wire->id.size)
        return (crew_string){ 0 };
    if (protocol->base64_bytes) /* JSON's are text already */
        return wire->id;
    for (size_t i = wire->id.size > 1; i < wire->id.size; i++)
        number = number << 8 | bytes[i];
    (void)snprintf(text, CREW_ID_TEXT, "%" PRIu64, number);
    return crew_str(text);
}

void crew_ending_of_wire(const crew_protocol *protocol, const crew_wire_call *wire, crew_call_end *end,
                         char id[CREW_ID_TEXT])
{
    end->method = wire->method;
    end->id = id_of(protocol, wire, id);
    end->protocol = protocol->name;
    end->one_way = end->one_way || wire->one_way;
}

void crew_ending_of(const crew_call *call, crew_call_end *end, char id[CREW_ID_TEXT])
{
    *end = (crew_call_end){ .known = call->entry != NULL,
                            .ending = call->ending,
                            .code = call->code,
                            .message = call->message,
                            .reason = call->reason,
                            .peer = crew_call_peer_name(call),
                            .address = crew_call_peer_address(call),
                            .endpoint = "",
                            .one_way = crew_call_is_one_way(call),
                            .deferred = call->deferred,
                            .bytes_out = call->reply->size,
                            .started_ns = call->started_ns };
    crew_ending_of_wire(call->group->protocol, call->wire, end, id);
}

/* Who asked for what, and why it went wrong. */
static void begin_line(struct crew_line *line, const crew_call_end *end)
{
    crew_line_text(line, "method", end->method);
    crew_line_text(line, "reason", crew_str(end->reason));
    crew_line_text(line, "error", end->message);
    crew_line_text(line, "peer", crew_str(end->peer));
    crew_line_text(line, "address", crew_str(end->address));
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

/* Nothing of the first completion is looked at: it may be another thread's, and what it said is gone. */
void crew_ending_log_twice(const crew_call *call)
{
    static struct crew_rate twice;
    const crew_call_end end = {
        .method = call->wire->method, .reason = "completed twice", .peer = "", .address = "", .endpoint = ""
    };
    log_rated(&twice, CREW_LOG_ERROR, "a handler completes its call once more", &end);
}
