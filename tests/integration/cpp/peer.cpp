/* A caller and a service on libjsonrpccpp, over HTTP and over unix sockets.
 *
 * usage: peer http|unix call URL|PATH [1]   calls the conformance worker (in JSON-RPC 1.0); prints what it says
 *        peer http|unix serve PORT|PATH     serves until it is killed; prints "serving"
 */
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <jsonrpccpp/client.h>
#include <jsonrpccpp/client/connectors/httpclient.h>
#include <jsonrpccpp/client/connectors/unixdomainsocketclient.h>
#include <jsonrpccpp/server.h>
#include <jsonrpccpp/server/connectors/httpserver.h>
#include <jsonrpccpp/server/connectors/unixdomainsocketserver.h>
#include <memory>
#include <string>
#include <unistd.h>

using namespace jsonrpc;

class Service : public AbstractServer<Service> {
public:
    explicit Service(AbstractServerConnector &connector) : AbstractServer<Service>(connector, JSONRPC_SERVER_V1V2)
    {
        bindAndAddMethod(Procedure("add", PARAMS_BY_POSITION, JSON_INTEGER, "a", JSON_INTEGER, "b", JSON_INTEGER, NULL),
                         &Service::add);
        bindAndAddMethod(Procedure("greet", PARAMS_BY_NAME, JSON_STRING, "name", JSON_STRING, NULL), &Service::greet);
        bindAndAddMethod(Procedure("fail", PARAMS_BY_POSITION, JSON_INTEGER, NULL), &Service::fail);
        bindAndAddNotification(Procedure("note", PARAMS_BY_POSITION, "text", JSON_STRING, NULL), &Service::note);
    }

    void add(const Json::Value &params, Json::Value &result)
    {
        result = params[0].asInt() + params[1].asInt();
    }

    void greet(const Json::Value &params, Json::Value &result)
    {
        result = "Hello " + params["name"].asString();
    }

    void fail(const Json::Value &, Json::Value &)
    {
        throw JsonRpcException(-32099, "no luck");
    }

    void note(const Json::Value &params)
    {
        std::cout << "noted " << params[0].asString() << std::endl;
    }
};

static void try_call(Client &client, const char *method, const Json::Value &params)
{
    try {
        std::string shown = client.CallMethod(method, params).toStyledString();
        while (!shown.empty() && shown.back() == '\n')
            shown.pop_back();
        std::cout << shown << std::endl;
    } catch (const JsonRpcException &error) {
        std::cout << error.GetCode() << " " << error.GetMessage() << std::endl;
    }
}

static int call(IClientConnector &connector, bool http, bool v1)
{
    Client client(connector, v1 ? JSONRPC_CLIENT_V1 : JSONRPC_CLIENT_V2);
    Json::Value pair(Json::arrayValue), text(Json::arrayValue), named, none(Json::arrayValue), failure(Json::arrayValue);
    pair.append(1);
    pair.append(2);
    text.append("na\xc3\xafve");
    named["minuend"] = 5;
    named["subtrahend"] = 3;
    failure.append(7);
    failure.append("no");
    try_call(client, "add", pair);
    try_call(client, "echo", text);
    if (!v1)
        try_call(client, "subtract", named);
    try_call(client, "nope", none);
    try_call(client, "fail", failure);
    if (http) { /* over a unix socket it waits for an answer to that, which JSON-RPC does not have */
        client.CallNotification("update", pair);
        std::cout << "noted" << std::endl;
    }
    if (v1)
        return 0;
    BatchCall batch;
    for (int i = 0; i < 3; i++) {
        Json::Value params(Json::arrayValue);
        params.append(i);
        params.append(1);
        batch.addCall("add", params);
    }
    BatchResponse replies = client.CallProcedures(batch);
    for (int id = 1; id <= 3; id++)
        std::cout << replies.getResult(id).asInt() << std::endl;
    return 0;
}

static int serve(AbstractServerConnector &connector)
{
    Service service(connector);
    if (!service.StartListening())
        return 1;
    std::cout << "serving" << std::endl;
    for (;;)
        pause();
}

int main(int count, char **words)
{
    if (count < 4)
        return 2;
    const std::string where = words[3];
    bool http = std::string(words[1]) == "http";
    if (std::string(words[2]) == "serve") {
        std::unique_ptr<AbstractServerConnector> connector;
        if (http)
            connector.reset(new HttpServer(std::atoi(words[3]), "", "", 4));
        else
            connector.reset(new UnixDomainSocketServer(where));
        return serve(*connector);
    }
    std::unique_ptr<IClientConnector> connector;
    if (http)
        connector.reset(new HttpClient(where));
    else
        connector.reset(new UnixDomainSocketClient(where));
    return call(*connector, http, count > 4);
}
