// An ext_proc server that does nothing, on gRPC's callback API with its default options.
//
// Answers each message with a constant and ends the stream with the body's, as
// bench/noop_server.py does; the last answer and the status go out together.

#include <grpcpp/grpcpp.h>

#include <iostream>

#include "envoy/service/ext_proc/v3/external_processor.grpc.pb.h"

namespace {

using envoy::service::ext_proc::v3::ExternalProcessor;
using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;

ProcessingResponse HeadersAnswer() {
  ProcessingResponse answer;
  answer.mutable_request_headers()->mutable_response();
  return answer;
}

ProcessingResponse BodyAnswer() {
  ProcessingResponse answer;
  auto* response = answer.mutable_request_body()->mutable_response();
  auto* header = response->mutable_header_mutation()->add_set_headers()->mutable_header();
  header->set_key("x-llm-tier");
  header->set_raw_value("premium");
  response->set_clear_route_cache(true);
  return answer;
}

const ProcessingResponse kHeaders = HeadersAnswer();
const ProcessingResponse kBody = BodyAnswer();

class Stream final : public grpc::ServerBidiReactor<ProcessingRequest, ProcessingResponse> {
 public:
  Stream() { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
    } else if (request_.has_request_body()) {
      StartWriteAndFinish(&kBody, grpc::WriteOptions(), grpc::Status::OK);
    } else {
      StartWrite(&kHeaders);
    }
  }

  void OnWriteDone(bool ok) override {
    if (ok) StartRead(&request_);
  }

  void OnDone() override { delete this; }

 private:
  ProcessingRequest request_;
};

class Service final : public ExternalProcessor::CallbackService {
  grpc::ServerBidiReactor<ProcessingRequest, ProcessingResponse>* Process(
      grpc::CallbackServerContext*) override {
    return new Stream;
  }
};

}  // namespace

int main() {
  Service service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::cout << "listening on 127.0.0.1:" << port << std::endl;
  server->Wait();
}
