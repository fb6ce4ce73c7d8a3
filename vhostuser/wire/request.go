// SPDX-License-Identifier: Apache-2.0

package wire

import "fmt"

// Request is the id of a message that a frontend sends to a backend.
type Request uint32

// The requests of a frontend, as numbered by enum VhostUserRequest.
const (
	GetFeatures         Request = 1
	SetFeatures         Request = 2
	SetOwner            Request = 3
	ResetOwner          Request = 4
	SetMemTable         Request = 5
	SetLogBase          Request = 6
	SetLogFD            Request = 7
	SetVringNum         Request = 8
	SetVringAddr        Request = 9
	SetVringBase        Request = 10
	GetVringBase        Request = 11
	SetVringKick        Request = 12
	SetVringCall        Request = 13
	SetVringErr         Request = 14
	GetProtocolFeatures Request = 15
	SetProtocolFeatures Request = 16
	GetQueueNum         Request = 17
	SetVringEnable      Request = 18
	SendRARP            Request = 19
	NetSetMTU           Request = 20
	SetBackendReqFD     Request = 21
	IOTLBMsg            Request = 22
	SetVringEndian      Request = 23
	GetConfig           Request = 24
	SetConfig           Request = 25
	CreateCryptoSession Request = 26
	CloseCryptoSession  Request = 27
	PostcopyAdvise      Request = 28
	PostcopyListen      Request = 29
	PostcopyEnd         Request = 30
	GetInflightFD       Request = 31
	SetInflightFD       Request = 32
	GPUSetSocket        Request = 33
	ResetDevice         Request = 34
	VringKick           Request = 35
	GetMaxMemSlots      Request = 36
	AddMemReg           Request = 37
	RemMemReg           Request = 38
	SetStatus           Request = 39
	GetStatus           Request = 40
	GetSharedObject     Request = 41
	SetDeviceStateFD    Request = 42
	CheckDeviceState    Request = 43
	lastRequest                 = CheckDeviceState
)

// Known says whether the protocol defines r.
func (r Request) Known() bool { return r >= GetFeatures && r <= lastRequest }

// String returns the name of the request as the protocol spells it.
func (r Request) String() string {
	if !r.Known() {
		return fmt.Sprintf("request %#x", uint32(r))
	}
	return requestNames[r]
}

var requestNames = [...]string{
	GetFeatures: "GET_FEATURES", SetFeatures: "SET_FEATURES",
	SetOwner: "SET_OWNER", ResetOwner: "RESET_OWNER",
	SetMemTable: "SET_MEM_TABLE", SetLogBase: "SET_LOG_BASE", SetLogFD: "SET_LOG_FD",
	SetVringNum: "SET_VRING_NUM", SetVringAddr: "SET_VRING_ADDR",
	SetVringBase: "SET_VRING_BASE", GetVringBase: "GET_VRING_BASE",
	SetVringKick: "SET_VRING_KICK", SetVringCall: "SET_VRING_CALL", SetVringErr: "SET_VRING_ERR",
	GetProtocolFeatures: "GET_PROTOCOL_FEATURES", SetProtocolFeatures: "SET_PROTOCOL_FEATURES",
	GetQueueNum: "GET_QUEUE_NUM", SetVringEnable: "SET_VRING_ENABLE",
	SendRARP: "SEND_RARP", NetSetMTU: "NET_SET_MTU",
	SetBackendReqFD: "SET_BACKEND_REQ_FD", IOTLBMsg: "IOTLB_MSG", SetVringEndian: "SET_VRING_ENDIAN",
	GetConfig: "GET_CONFIG", SetConfig: "SET_CONFIG",
	CreateCryptoSession: "CREATE_CRYPTO_SESSION", CloseCryptoSession: "CLOSE_CRYPTO_SESSION",
	PostcopyAdvise: "POSTCOPY_ADVISE", PostcopyListen: "POSTCOPY_LISTEN", PostcopyEnd: "POSTCOPY_END",
	GetInflightFD: "GET_INFLIGHT_FD", SetInflightFD: "SET_INFLIGHT_FD", GPUSetSocket: "GPU_SET_SOCKET",
	ResetDevice: "RESET_DEVICE", VringKick: "VRING_KICK",
	GetMaxMemSlots: "GET_MAX_MEM_SLOTS", AddMemReg: "ADD_MEM_REG", RemMemReg: "REM_MEM_REG",
	SetStatus: "SET_STATUS", GetStatus: "GET_STATUS", GetSharedObject: "GET_SHARED_OBJECT",
	SetDeviceStateFD: "SET_DEVICE_STATE_FD", CheckDeviceState: "CHECK_DEVICE_STATE",
}

// BackendRequest is the id of a message that a backend sends to a frontend.
type BackendRequest uint32

// The requests of a backend, as numbered by enum VhostUserBackendRequest.
const (
	BackendIOTLBMsg           BackendRequest = 1
	BackendConfigChange       BackendRequest = 2
	BackendVringHostNotifier  BackendRequest = 3
	BackendVringCall          BackendRequest = 4
	BackendVringErr           BackendRequest = 5
	BackendSharedObjectAdd    BackendRequest = 6
	BackendSharedObjectRemove BackendRequest = 7
	BackendSharedObjectLookup BackendRequest = 8
	lastBackendRequest                       = BackendSharedObjectLookup
)

// String returns the name of the request as the protocol spells it.
func (r BackendRequest) String() string {
	if r < BackendIOTLBMsg || r > lastBackendRequest {
		return fmt.Sprintf("backend request %#x", uint32(r))
	}
	return backendRequestNames[r]
}

var backendRequestNames = [...]string{
	BackendIOTLBMsg: "IOTLB_MSG", BackendConfigChange: "CONFIG_CHANGE_MSG",
	BackendVringHostNotifier: "VRING_HOST_NOTIFIER_MSG", BackendVringCall: "VRING_CALL",
	BackendVringErr: "VRING_ERR", BackendSharedObjectAdd: "SHARED_OBJECT_ADD",
	BackendSharedObjectRemove: "SHARED_OBJECT_REMOVE",
	BackendSharedObjectLookup: "SHARED_OBJECT_LOOKUP",
}
