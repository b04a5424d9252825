import ArgumentParser
import Foundation
import NIOCore
import NIOPosix
import NetFront
import NetFrontNIO
import NetFrontTool
import ToolSupport
import XenNative

@main struct NetResponder: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "net-responder",
    abstract: "A host behind a network card of a real Xen, in a few lines of async Swift.",
    discussion: """
      Answers ARP requests for its address, pings, and UDP datagrams to port 7 (echo). The card is the one whose frontend \
      directory is given; xen-device makes one. Ends at SIGINT or SIGTERM, or when the card is removed.

        eval "$(xen-device create vif --frontend-domain 0 --frontend-root udevice)"
        net-responder "$frontend" --address 10.9.0.2/24 &
        ip addr add 10.9.0.1/24 dev vif0.0
        ip link set vif0.0 up
        ping 10.9.0.2
      """)

  @Argument(
    help: ArgumentHelp("The card's frontend directory, such as /local/domain/0/udevice/vif/0.", valueName: "path"))
  var frontendPath: String

  @Option(
    help: ArgumentHelp("The host's address.", valueName: "a.b.c.d/n"),
    transform: { text in
      guard let network = IPv4Network(text) else {
        throw ValidationError("a host's address and its network are written such as 10.9.0.2/24")
      }
      return network
    })
  var address: IPv4Network

  @Flag(help: "Have the host be a handler in a SwiftNIO channel's pipeline, in place of a loop over what arrives.")
  var nio = false

  @Option(help: ArgumentHelp("How long the first connection may take.", valueName: "seconds"))
  var timeout = 30.0

  func validate() throws {
    guard frontendPath.hasPrefix("/"), !frontendPath.hasSuffix("/") else {
      throw ValidationError("The card's path is absolute, such as /local/domain/0/udevice/vif/0.")
    }
    guard (0.001...86400).contains(timeout) else {
      throw ValidationError("--timeout is a number of seconds from 0.001 up to a day.")
    }
  }

  func run() async throws {
    let signals = try EndSignals()
    let card = try await NetFrontCard.connect(
      to: frontendPath, on: NativePlatform(), announcing: [.address(address.address)], timeout: .seconds(timeout),
      log: LogLevel.warning.logger("net-responder"))
    Self.say(
      "\(address) is there; card \(card.macAddress.map { "\($0)" } ?? "-"), MTU \(card.mtu)\n\(card.negotiation)")
    let responder = Task { nio ? try await serveByNIO(card) : try await serve(card) }
    // A thread of its own waits for a signal; it ends with the program.
    Thread.detachNewThread {
      Wakeup.wait(for: signals.descriptor, timeout: -1)
      responder.cancel()
    }
    let counts = try await responder.value
    await card.close()
    Self.say("\(address): \(counts)")
  }

  /// What arrives is a sequence of batches, and so is what goes out.
  private func serve(_ card: NetFrontCard) async throws -> IPv4Host.Counts {
    var responder = Responder(card, network: address)
    try await responder.run()
    return responder.counts
  }

  /// The same as a channel with one handler.
  private func serveByNIO(_ card: NetFrontCard) async throws -> IPv4Host.Counts {
    let loop = MultiThreadedEventLoopGroup.singleton.next()
    let counts = loop.makePromise(of: IPv4Host.Counts.self)
    let host = IPv4Host(card, network: address)
    let channel = try await CardChannel.connect(card, on: loop) { channel in
      channel.eventLoop.makeCompletedFuture {
        try channel.pipeline.syncOperations.addHandler(IPv4HostHandler(host) { counts.succeed($0) })
      }
    }.get()
    return try await withTaskCancellationHandler {
      try await counts.futureResult.get()
    } onCancel: {
      channel.close(promise: nil)
    }
  }

  /// A line at once: a file may be the output.
  private static func say(_ line: String) { try? FileHandle.standardOutput.write(contentsOf: Data((line + "\n").utf8)) }
}
