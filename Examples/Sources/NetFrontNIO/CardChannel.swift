import NIOCore
import NetFront
import Synchronization

/// A network card as a SwiftNIO channel: each frame that arrives is a read, and each ``CardFrame`` that is written a frame to send.
///
/// What arrives together is read together, and then a read is complete; while its handlers want no read, frames wait in the card, at
/// most as many as ``NetFrontCard/receivedCapacity``, and others are dropped, as behind any card. What is flushed together is one
/// batch: a write's promise is kept when its frame is on its way, and broken with the card's error for a frame that it refuses; the others go.
/// Where the card is closed before a batch is on its way, all its promises are broken, though some of its frames may be. It closes
/// with the card, and the card with it.
///
/// The options are auto-read, and the water marks of what has been written and is not on its way, in bytes.
///
/// Sendable: but for the atomics, what changes belongs to the event loop.
public final class CardChannel: @unchecked Sendable {
  public let eventLoop: any EventLoop
  public let card: NetFrontCard
  public let closeFuture: EventLoopFuture<Void>
  private let closePromise: EventLoopPromise<Void>
  private var ownPipeline: ChannelPipeline!
  private let active = Atomic(false)
  private let writable = Atomic(true)

  private enum Phase { case idle, active, closing, closed }
  private var phase = Phase.idle
  private var readsByItself = true
  private var isReading = false

  private typealias Write = (frame: CardFrame, promise: EventLoopPromise<Void>?)
  /// Written; of these, how many were flushed; and how many bytes they, and those on their way to the card, have.
  private var writes: [Write] = []
  private var flushedCount = 0
  private var pendingByteCount = 0
  private var transmission: Task<Void, Never>?
  private var waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 32 * 1024, high: 64 * 1024)

  private init(_ card: NetFrontCard, on eventLoop: any EventLoop) {
    (self.card, self.eventLoop) = (card, eventLoop)
    closePromise = eventLoop.makePromise()
    closeFuture = closePromise.futureResult
    ownPipeline = ChannelPipeline(channel: self)
  }

  /// Makes a channel of a connected card, which is the channel's from now on.
  ///
  /// - Parameter initializer: adds the handlers, on the event loop, before anything is read. Where it fails the card is closed.
  public static func connect(
    _ card: NetFrontCard, on eventLoop: any EventLoop,
    initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
  ) -> EventLoopFuture<CardChannel> {
    eventLoop.flatSubmit {
      let channel = CardChannel(card, on: eventLoop)
      return initializer(channel).flatMap { channel.register() }.map { channel }.flatMapError { error in
        let closed = eventLoop.makePromise(of: Void.self)
        channel.close0(error: error, mode: .all, promise: closed)
        return closed.futureResult.flatMapThrowing { throw error }
      }
    }
  }

  // MARK: Reading

  private func readByItself() { if readsByItself, phase == .active { pipeline.read() } }

  private func take(_ batch: NetFrameBatch?) {
    isReading = false
    guard phase == .active else { return }
    guard let batch else { return close0(error: ChannelError.eof, mode: .all, promise: nil) }
    for index in batch.indices {
      let frame = CardFrame(allocator.buffer(bytes: batch[index]), batch.metadata(at: index))
      pipeline.syncOperations.fireChannelRead(NIOAny(frame))
    }
    pipeline.syncOperations.fireChannelReadComplete()
    readByItself()
  }

  // MARK: Writing

  private func transmit() {
    guard transmission == nil, flushedCount > 0, phase == .active else { return }
    let sent = Array(writes.prefix(flushedCount))
    writes.removeFirst(flushedCount)
    flushedCount = 0
    var batch = NetFrameBatch()
    for write in sent { batch.append(write.frame) }
    let promises = sent.map(\.promise)
    let byteCount = sent.reduce(0) { $0 + $1.frame.bytes.readableBytes }
    transmission = Task { [card, eventLoop, batch] in
      let result: Result<[NetFrontRefusal], any Error>
      do { result = .success(try await card.transmit(batch)) } catch { result = .failure(error) }
      eventLoop.execute {
        self.transmission = nil
        Self.complete(promises, with: result)
        self.changePending(by: -byteCount)
        self.transmit()
      }
    }
  }

  private static func complete(
    _ promises: [EventLoopPromise<Void>?], with result: Result<[NetFrontRefusal], any Error>
  ) {
    switch result {
    case .success(let refusals):
      for refusal in refusals { promises[refusal.index]?.fail(refusal.error) }
      // A promise is kept or broken once: the others are left.
      let refused = Set(refusals.map(\.index))
      for (index, promise) in promises.enumerated() where !refused.contains(index) { promise?.succeed() }
    case .failure(let error): for promise in promises { promise?.fail(error) }
    }
  }

  private func changePending(by byteCount: Int) {
    pendingByteCount += byteCount
    let wasWritable = isWritable
    let isWritable =
      wasWritable ? pendingByteCount <= waterMark.high : pendingByteCount < waterMark.low || pendingByteCount == 0
    guard isWritable != wasWritable else { return }
    writable.store(isWritable, ordering: .relaxed)
    if phase == .active { pipeline.syncOperations.fireChannelWritabilityChanged() }
  }
}

extension NetFrameBatch {
  fileprivate mutating func append(_ frame: CardFrame) {
    append(Array(frame.bytes.readableBytesView).span, frame.metadata)
  }
}

extension CardChannel: Channel {
  public var allocator: ByteBufferAllocator { ByteBufferAllocator() }
  public var pipeline: ChannelPipeline { ownPipeline }
  public var localAddress: SocketAddress? { nil }
  public var remoteAddress: SocketAddress? { nil }
  public var parent: (any Channel)? { nil }
  public var isActive: Bool { active.load(ordering: .acquiring) }
  public var isWritable: Bool { writable.load(ordering: .relaxed) }
  public var _channelCore: any ChannelCore { self }
  public var syncOptions: (any NIOSynchronousChannelOptions)? { Options(channel: self) }

  public func setOption<Option: ChannelOption>(_ option: Option, value: Option.Value) -> EventLoopFuture<Void> {
    onLoop { try self.set(option, value) }
  }

  public func getOption<Option: ChannelOption>(_ option: Option) -> EventLoopFuture<Option.Value> {
    onLoop { try self.get(option) }
  }

  /// At once where we are on the event loop.
  private func onLoop<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) -> EventLoopFuture<Value> {
    eventLoop.inEventLoop ? eventLoop.makeCompletedFuture(withResultOf: body) : eventLoop.submit(body)
  }

  private struct Options: NIOSynchronousChannelOptions {
    let channel: CardChannel

    func setOption<Option: ChannelOption>(_ option: Option, value: Option.Value) throws {
      try channel.set(option, value)
    }
    func getOption<Option: ChannelOption>(_ option: Option) throws -> Option.Value { try channel.get(option) }
  }

  private func set<Option: ChannelOption>(_ option: Option, _ value: Option.Value) throws {
    eventLoop.preconditionInEventLoop()
    switch value {
    case let value as Bool where option is ChannelOptions.Types.AutoReadOption:
      readsByItself = value
      readByItself()
    case let value as ChannelOptions.Types.WriteBufferWaterMark
    where option is ChannelOptions.Types.WriteBufferWaterMarkOption:
      waterMark = value
      changePending(by: 0)
    default: throw ChannelError.operationUnsupported
    }
  }

  private func get<Option: ChannelOption>(_ option: Option) throws -> Option.Value {
    eventLoop.preconditionInEventLoop()
    let value: Any? =
      switch option {
      case is ChannelOptions.Types.AutoReadOption: readsByItself
      case is ChannelOptions.Types.WriteBufferWaterMarkOption: waterMark
      default: nil
      }
    guard let value = value as? Option.Value else { throw ChannelError.operationUnsupported }
    return value
  }
}

// What the pipeline ends in; called on the event loop.
extension CardChannel: ChannelCore {
  public func localAddress0() throws -> SocketAddress { throw ChannelError.operationUnsupported }
  public func remoteAddress0() throws -> SocketAddress { throw ChannelError.operationUnsupported }
  public func bind0(to: SocketAddress, promise: EventLoopPromise<Void>?) {
    promise?.fail(ChannelError.operationUnsupported)
  }
  public func connect0(to: SocketAddress, promise: EventLoopPromise<Void>?) {
    promise?.fail(ChannelError.operationUnsupported)
  }
  public func triggerUserOutboundEvent0(_ event: Any, promise: EventLoopPromise<Void>?) {
    promise?.fail(ChannelError.operationUnsupported)
  }

  public func register0(promise: EventLoopPromise<Void>?) {
    guard phase == .idle else {
      promise?.fail(ChannelError.inappropriateOperationForState)
      return
    }
    phase = .active
    active.store(true, ordering: .releasing)
    promise?.succeed(())
    pipeline.syncOperations.fireChannelRegistered()
    pipeline.syncOperations.fireChannelActive()
    readByItself()
  }

  public func registerAlreadyConfigured0(promise: EventLoopPromise<Void>?) { register0(promise: promise) }

  public func write0(_ data: NIOAny, promise: EventLoopPromise<Void>?) {
    guard phase == .active else {
      promise?.fail(phase == .idle ? ChannelError.inappropriateOperationForState : ChannelError.ioOnClosedChannel)
      return
    }
    guard let frame = tryUnwrapData(data, as: CardFrame.self) else {
      promise?.fail(ChannelError.operationUnsupported)
      return
    }
    writes.append((frame, promise))
    changePending(by: frame.bytes.readableBytes)
  }

  public func flush0() {
    flushedCount = writes.count
    transmit()
  }

  public func read0() {
    guard phase == .active, !isReading else { return }
    isReading = true
    Task { [card, eventLoop] in
      var batches = card.received.makeAsyncIterator()
      let batch = await batches.next()
      eventLoop.execute { self.take(batch) }
    }
  }

  public func close0(error: any Error, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    guard mode == .all else {
      promise?.fail(ChannelError.operationUnsupported)
      return
    }
    guard phase == .idle || phase == .active else {
      promise?.fail(ChannelError.alreadyClosed)
      return
    }
    let wasActive = phase == .active
    phase = .closing
    active.store(false, ordering: .releasing)
    let unsent = writes
    (writes, flushedCount) = ([], 0)
    for write in unsent { write.promise?.fail(error) }
    Task { [card, eventLoop, transmission] in
      await card.close()
      // The card has ended it; what came of it is told before the handlers go.
      await transmission?.value
      eventLoop.execute {
        self.phase = .closed
        promise?.succeed(())
        if wasActive {
          self.pipeline.syncOperations.fireChannelInactive()
          self.pipeline.syncOperations.fireChannelUnregistered()
        }
        eventLoop.execute {
          self.removeHandlers(pipeline: self.pipeline)
          self.closePromise.succeed(())
        }
      }
    }
  }

  public func channelRead0(_ data: NIOAny) {}

  public func errorCaught0(error: any Error) { close0(error: error, mode: .all, promise: nil) }
}
