/* Browsers run other people's pages: one from elsewhere may send what a form may send, without asking, and
 * once a name means this host it may read the answers too. So a request that names an origin is refused
 * unless that is allowed, or is this endpoint by an address or a name that nobody elsewhere can own: one
 * without dots, or the URL's own. */
#include "transport/http_rules.h"

#include "core/json.h"

#include <rpcrew/impl/protocol.h>

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

enum { HEAD_BYTES = 16 << 10 };

static const char document[] = "/openrpc.json";

void http_rules_read(struct http_rules *rules, const crew_url *url, size_t body_most)
{
    *rules = (struct http_rules){ .url = url, .body_most = body_most };
    rules->path = crew_str(crew_url_path(url));
    while (rules->path.size && rules->path.data[rules->path.size - 1] == '/')
        rules->path.size--;
    rules->lists = crew_url_option(url, "origin") != NULL;
    rules->strict = crew_url_option_is(url, "strict", "yes");
    rules->shows = !crew_url_option_is(url, "page", "no");
    rules->reports = !crew_url_option_is(url, "reports", "no");
    rules->only = crew_url_option_is(url, "reports", "only");
    rules->notify_status = (unsigned)crew_url_number(url, "notify_status", 204);
    rules->head_most = crew_url_number(url, "head_bytes", HEAD_BYTES);
}

static void refuse(struct http_verdict *v, unsigned status, const char *words)
{
    v->wish = HTTP_REFUSED;
    v->status = status;
    v->words = words;
}

/* ---- where ---- */

/* The path of a target, which may be a whole URL, without '/' at its end. */
static crew_string path_of(crew_string target)
{
    const char *at = target.data;
    if (strncasecmp(at, "http://", 7) == 0 || strncasecmp(at, "https://", 8) == 0) {
        at = strchr(at, ':') + 3;
        at += strcspn(at, "/?#");
    }
    size_t size = strcspn(at, "?#");
    while (size && at[size - 1] == '/')
        size--;
    return (crew_string){ at, size };
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    int low = tolower((unsigned char)c);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* Whether text, with its percent escapes, begins with plain; *used: how much of it does. */
static bool begins_with(crew_string text, crew_string plain, size_t *used)
{
    size_t at = 0;
    for (size_t i = 0; i < plain.size; i++) {
        if (at == text.size)
            return false;
        int c = (unsigned char)text.data[at], high, low;
        size_t size = 1;
        if (c == '%' && at + 2 < text.size && (high = hex(text.data[at + 1])) >= 0 &&
            (low = hex(text.data[at + 2])) >= 0) {
            c = high << 4 | low;
            size = 3;
        }
        if (c != (unsigned char)plain.data[i])
            return false;
        at += size;
    }
    *used = at;
    return true;
}

/* ---- who ---- */

/* host[:port], without the port. */
static crew_string without_port(const char *authority)
{
    const char *bracket = *authority == '[' ? strchr(authority, ']') : NULL;
    size_t size = bracket ? (size_t)(bracket - authority) + 1 : strcspn(authority, ":/");
    return (crew_string){ authority, size };
}

static bool same_name(crew_string a, const char *b)
{
    return a.size == strlen(b) && strncasecmp(a.data, b, a.size) == 0;
}

/* Whether nobody elsewhere can have a page under this host. */
static bool is_ours(crew_string host, const crew_url *url)
{
    char text[INET6_ADDRSTRLEN];
    struct in_addr four;
    bool is_address = host.size && *host.data == '[';
    if (host.size && host.size < sizeof text) {
        memcpy(text, host.data, host.size);
        text[host.size] = '\0';
        is_address = is_address || inet_pton(AF_INET, text, &four) == 1;
    }
    bool is_single = !memchr(host.data, '.', host.size);
    for (size_t i = 0; i < crew_url_host_count(url); i++)
        if (same_name(host, crew_url_host(url, i)))
            return true;
    return host.size && (is_address || is_single);
}

/* Whether a page of this origin is one of the endpoint's own. */
static bool is_own_page(const struct http_rules *rules, const struct http_message *m, const char *origin)
{
    const char *host = http_field(m, "host");
    size_t scheme = strncasecmp(origin, "http://", 7) == 0    ? 7
                    : strncasecmp(origin, "https://", 8) == 0 ? 8
                                                              : 0;
    return host && scheme && strcasecmp(origin + scheme, host) == 0 &&
           is_ours(without_port(host), rules->url);
}

static bool is_listed(const struct http_rules *rules, const char *origin)
{
    const char *listed;
    for (size_t i = 0; (listed = crew_url_option_at(rules->url, "origin", i)); i++)
        if (strcmp(listed, "*") == 0 || strcasecmp(listed, origin) == 0)
            return true;
    return false;
}

/* ---- what ---- */

/* Whether the type says another character set than JSON's. */
static bool other_charset(const char *type)
{
    for (const char *at = type; (at = strchr(at, ';')); at++) {
        const char *name = at + 1 + strspn(at + 1, " \t");
        if (strncasecmp(name, "charset=", 8) != 0)
            continue;
        name += 8 + (name[8] == '"');
        return strncasecmp(name, "utf-8", 5) != 0 && strncasecmp(name, "utf8", 4) != 0;
    }
    return false;
}

static void judge_type(const struct http_rules *rules, const struct http_message *m, struct http_verdict *v)
{
    const char *type = http_field(m, "content-type"), *encoding = http_field(m, "content-encoding");
    const crew_protocol *protocol = type ? crew_protocol_of(type, (crew_string){ "", 0 }) : NULL;
    if (encoding && *encoding && strcasecmp(encoding, "identity") != 0)
        refuse(v, 415, "a Content-Encoding: bodies are read as they are");
    else if (type && *type && (!protocol || other_charset(type)))
        refuse(v, 415, "a Content-Type that is none of application/json (in UTF-8) and application/msgpack");
    else if (rules->strict &&
             (!protocol || strncasecmp(type, protocol->content_type, strlen(protocol->content_type)) != 0))
        refuse(v, 415, "wants Content-Type: application/json or application/msgpack");
    else
        v->content_type = protocol ? protocol->content_type : NULL;
}

static void judge_call(const struct http_rules *rules, const struct http_message *m, struct http_verdict *v)
{
    const char *expect = http_field(m, "expect");
    v->wish = HTTP_CALLS;
    if (m->length != UINT64_MAX && m->length > rules->body_most)
        refuse(v, 413, "a body that is too large");
    else if (expect && strcasecmp(expect, "100-continue") != 0)
        refuse(v, 417, "an expectation other than 100-continue");
    else
        judge_type(rules, m, v);
}

static void judge_upgrade(const struct http_message *m, struct http_verdict *v)
{
    const char *version = http_field(m, "sec-websocket-version"), *key = http_field(m, "sec-websocket-key");
    v->wish = HTTP_UPGRADES;
    if (!version || strcmp(version, "13") != 0)
        refuse(v, 426, "wants Sec-WebSocket-Version: 13");
    else if (!key || strlen(key) != 24)
        refuse(v, 400, "wants a Sec-WebSocket-Key of 16 bytes in base64");
}

/* Which report is at the path, wherever the endpoint is; NULL: none. */
static const char *report_at(const struct http_rules *rules, crew_string path)
{
    static const char *const names[] = { "/metrics", "/healthz", "/readyz" };
    bool reports = rules->reports && !rules->anywhere;
    for (size_t i = 0; reports && i < sizeof names / sizeof *names; i++)
        if (crew_string_equal(path, crew_str(names[i])))
            return names[i] + 1;
    return NULL;
}

void http_judge(const struct http_rules *rules, const struct http_message *m, struct http_verdict *v)
{
    const char *origin = http_field(m, "origin");
    crew_string path = path_of(http_target(m));
    size_t used = 0;
    bool gets = strcmp(m->method, "GET") == 0;
    bool looks = gets || strcmp(m->method, "HEAD") == 0;
    bool is_here = rules->anywhere || begins_with(path, rules->path, &used);
    size_t end = strlen(document);
    if (rules->anywhere) /* so that what is asked for is told by its end */
        used = path.size >= end && memcmp(path.data + path.size - end, document, end) == 0 ? path.size - end
                                                                                           : path.size;
    crew_string rest = { path.data + used, path.size - used };
    bool to_websocket = m->upgrades && http_list_has(http_field(m, "upgrade"), "websocket");
    const char *report = looks && !to_websocket ? report_at(rules, path) : NULL;
    *v = (struct http_verdict){ .wish = HTTP_REFUSED };
    bool has_rest = rest.size && !(rules->shows && crew_string_equal(rest, crew_str(document)));
    if (!report && (rules->only || !is_here || has_rest)) {
        refuse(v, 404,
               rules->only ? "nothing is at this path: there are /metrics, /healthz and /readyz"
                           : "nothing is at this path");
        return;
    }
    if (origin && !is_own_page(rules, m, origin) && !is_listed(rules, origin)) {
        refuse(v, 403, "pages of this Origin may not call: the worker's URL can allow it by origin=");
        return;
    }
    v->origin = origin;
    if (report && !gets && strcmp(report, "metrics") == 0) {
        refuse(v, 405, "metrics are written for GET alone");
    } else if (report) {
        v->wish = HTTP_REPORTS;
        v->words = report;
    } else if (strcmp(m->method, "OPTIONS") == 0) {
        v->wish = HTTP_ASKS;
    } else if (looks && rest.size) {
        v->wish = HTTP_DISCOVERS;
    } else if (gets && to_websocket) {
        judge_upgrade(m, v);
    } else if (looks && rules->shows) {
        v->wish = HTTP_SEES;
    } else if (strcmp(m->method, "POST") == 0 && !rest.size) {
        judge_call(rules, m, v);
    } else {
        refuse(v, 405, "calls are sent by POST");
    }
}

/* ---- refusals ---- */

const char *http_status_text(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } texts[] = {
        { 200, "OK" },
        { 204, "No Content" },
        { 400, "Bad Request" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 413, "Content Too Large" },
        { 415, "Unsupported Media Type" },
        { 417, "Expectation Failed" },
        { 426, "Upgrade Required" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 503, "Service Unavailable" },
        { 505, "HTTP Version Not Supported" },
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "Error";
}

void http_error_body(unsigned status, const char *words, crew_buffer *out)
{
    int code = status == 403   ? CREW_CODE_FORBIDDEN
               : status == 503 ? CREW_CODE_OVERLOADED
               : status >= 500 ? CREW_CODE_INTERNAL_ERROR
                               : CREW_CODE_INVALID_REQUEST;
    crew_buffer_printf(out, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":%d,\"message\":", code);
    if (crew_json_write_string(crew_str(words), out) != CREW_OK) /* ours: it is UTF-8 */
        out->failed = true;
    crew_buffer_text(out, "},\"id\":null}");
}
