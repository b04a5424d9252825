import ExampleSupport
import NBDProtocol
import NIOCore
import NIOPosix
import Synchronization

/// Listens on a unix socket, and serves every client that connects.
struct NBDServer {
  static let maximumClients = 32
  /// How long a client may take, in the end, to fetch the answers that it has coming.
  private static let patience = TimeAmount.seconds(5)

  let uri: String
  private let path: UnixSocketPath
  private let identity: UnixSocketPath.Identity?
  private let clients: NBDClients
  private let listener: any Channel

  /// - Throws: ``ExampleError`` when the socket cannot be had.
  init(_ service: NBDService, at path: UnixSocketPath) async throws {
    let clients = NBDClients(maximum: Self.maximumClients)
    let bootstrap = ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .childChannelOption(.allowRemoteHalfClosure, value: true)
      .childChannelOption(
        .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 1 << 12, initial: 1 << 16, maximum: 1 << 18)
      )
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          do { try clients.add(channel) } catch {
            service.complain("a client is turned away: \(error)")
            throw error
          }
          try channel.pipeline.syncOperations.addHandler(NBDConnection(number: service.countClient(), of: service))
        }
      }
    // Bound here, not by NIO, which in the end would remove whatever socket then has this path.
    let socket = try await path.listen()
    identity = path.identity
    self.path = path
    do { listener = try await bootstrap.withBoundSocket(socket).get() } catch {
      path.remove(identity)
      throw error
    }
    self.clients = clients
    uri = "nbd+unix:///?socket=\(path.escaped)"
  }

  /// Takes no more clients and no more requests, and returns when those under way have been answered.
  func stop() async throws {
    path.remove(identity)
    try await listener.close()
    let left = clients.stopAdding()
    for channel in left {
      channel.pipeline.fireUserInboundEventTriggered(NBDService.Stopping())
      channel.eventLoop.scheduleTask(in: Self.patience) { channel.close(promise: nil) }
    }
    for channel in left { try? await channel.closeFuture.get() }
  }
}

/// Why a client's connection is closed at once.
private enum NBDTurnedAway: Error, CustomStringConvertible {
  case full(clientCount: Int)
  case stopping

  var description: String {
    switch self {
    case .full(let count): "\(count) are connected already"
    case .stopping: "the server is stopping"
    }
  }
}

/// Who is connected.
private final class NBDClients: Sendable {
  private struct State {
    var channels: [ObjectIdentifier: any Channel] = [:]
    var isStopping = false
  }

  private let maximum: Int
  private let state = Mutex(State())

  init(maximum: Int) { self.maximum = maximum }

  func add(_ channel: any Channel) throws(NBDTurnedAway) {
    let key = ObjectIdentifier(channel)
    try state.withLock { (state) throws(NBDTurnedAway) in
      if state.isStopping { throw .stopping }
      if state.channels.count >= maximum { throw .full(clientCount: maximum) }
      state.channels[key] = channel
    }
    channel.closeFuture.whenComplete { _ in self.state.withLock { $0.channels[key] = nil } }
  }

  func stopAdding() -> [any Channel] {
    state.withLock { state in
      state.isStopping = true
      return Array(state.channels.values)
    }
  }
}
