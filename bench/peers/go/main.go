// An ext_proc server that does nothing, on grpc-go with its default options.
//
// Answers each message with a constant and ends the stream after the body's, as
// bench/noop_server.py does.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
)

var headersAnswer = &extprocv3.ProcessingResponse{
	Response: &extprocv3.ProcessingResponse_RequestHeaders{
		RequestHeaders: &extprocv3.HeadersResponse{Response: &extprocv3.CommonResponse{}},
	},
}

var bodyAnswer = &extprocv3.ProcessingResponse{
	Response: &extprocv3.ProcessingResponse_RequestBody{
		RequestBody: &extprocv3.BodyResponse{
			Response: &extprocv3.CommonResponse{
				HeaderMutation: &extprocv3.HeaderMutation{
					SetHeaders: []*corev3.HeaderValueOption{
						{Header: &corev3.HeaderValue{Key: "x-llm-tier", RawValue: []byte("premium")}},
					},
				},
				ClearRouteCache: true,
			},
		},
	},
}

type server struct {
	extprocv3.UnimplementedExternalProcessorServer
}

func (server) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if request.GetRequestBody() != nil {
			return stream.Send(bodyAnswer)
		}
		if err := stream.Send(headersAnswer); err != nil {
			return err
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	extprocv3.RegisterExternalProcessorServer(grpcServer, server{})
	fmt.Printf("listening on %s\n", listener.Addr())
	log.Fatal(grpcServer.Serve(listener))
}
