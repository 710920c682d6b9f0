//! An ext_proc server that does nothing, on tonic with its default options.
//!
//! Answers each message with a constant and ends the stream after the body's, as
//! bench/noop_server.py does. Tokio has its default of a thread for each core.

use std::pin::Pin;
use std::sync::LazyLock;

use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

#[allow(clippy::all, dead_code)]
mod protos {
    include!(concat!(env!("OUT_DIR"), "/protos.rs"));
}

use protos::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use protos::envoy::service::ext_proc::v3::external_processor_server::{
    ExternalProcessor, ExternalProcessorServer,
};
use protos::envoy::service::ext_proc::v3::{
    BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, ProcessingRequest,
    ProcessingResponse, processing_request, processing_response,
};

static HEADERS: LazyLock<ProcessingResponse> = LazyLock::new(|| {
    answer(processing_response::Response::RequestHeaders(
        HeadersResponse {
            response: Some(CommonResponse::default()),
        },
    ))
});

static BODY: LazyLock<ProcessingResponse> = LazyLock::new(|| {
    let tier = HeaderValue {
        key: "x-llm-tier".into(),
        raw_value: "premium".into(),
        ..HeaderValue::default()
    };
    let option = HeaderValueOption {
        header: Some(tier),
        ..HeaderValueOption::default()
    };
    let mutation = HeaderMutation {
        set_headers: vec![option],
        ..HeaderMutation::default()
    };
    answer(processing_response::Response::RequestBody(BodyResponse {
        response: Some(CommonResponse {
            header_mutation: Some(mutation),
            clear_route_cache: true,
            ..CommonResponse::default()
        }),
    }))
});

fn answer(response: processing_response::Response) -> ProcessingResponse {
    ProcessingResponse {
        response: Some(response),
        ..ProcessingResponse::default()
    }
}

struct Noop;

type Answers = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ExternalProcessor for Noop {
    type ProcessStream = Answers;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let messages = Some(request.into_inner());
        // The state is gone after the body's answer: the stream ends then.
        let answers = futures_util::stream::try_unfold(messages, |state| async {
            let Some(mut messages) = state else {
                return Ok(None);
            };
            match messages.message().await? {
                None => Ok(None),
                Some(ProcessingRequest {
                    request: Some(processing_request::Request::RequestBody(_)),
                    ..
                }) => Ok(Some((BODY.clone(), None))),
                Some(_) => Ok(Some((HEADERS.clone(), Some(messages)))),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    Server::builder()
        .add_service(ExternalProcessorServer::new(Noop))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}
