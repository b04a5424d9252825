#if canImport(CNBD)
  import BlkBack
  import CLinux
  import Glibc
  import Synchronization
  import SystemPackage

  /// A connection that is made again when it ends, and what is under way on it.
  ///
  /// Sendable: everything that changes is changed under the lock. One queue has it for itself, unless the server wants no more
  /// than one: then whichever queue's thread wakes first does the work, and gives the others theirs.
  final class NBDConnection: @unchecked Sendable {
    /// What one queue has been given back, and has not yet completed.
    final class Port {
      fileprivate var finished: [(request: StoreRequest, fault: String?)] = []
      fileprivate var isSignalled = false
      /// Nothing more of what it has is begun.
      fileprivate var isAbandoned = false
      let wakeup: Wakeup

      init() throws(ResourceError) { wakeup = try Wakeup() }
    }

    /// What a store's connections know of their disk together: a flush on one is for the writes of all.
    final class Disk: Sendable {
      /// In bytes, of the export, as it was when a connection was last made.
      let byteCount = Atomic<UInt64>(0)
      /// How many commands that change something the server has done; and how many of these before a flush that it has done.
      fileprivate let changeCount = Atomic<UInt64>(0)
      fileprivate let flushedCount = Atomic<UInt64>(0)
      /// For good: who has not been told yet that what he wrote may be gone is told by his next flush.
      fileprivate let hasLostWrites = Atomic(false)
    }

    private struct Operation {
      enum Step { case transfer, flushBefore, transferBetween, flushAfter, flush, discard }

      var request: StoreRequest
      let port: Port
      var step: Step
      var bounce: Bounce?
      /// Bytes that are done.
      var done: UInt64 = 0
      /// How many commands a flush comes after.
      var changeCount: UInt64 = 0
      /// In nanoseconds: when it is no longer waited for.
      var deadline: UInt64 = 0
    }

    let address: NBDAddress
    private let options: NBDStoreOptions
    let disk: Disk
    private let lock = Mutex(())

    private var link: NBDLink?
    private var isConnected = false
    /// As it was when it was first connected to.
    private var export: NBDExport?
    /// Why there is no connection.
    private var reason = ""
    /// In nanoseconds: until when to connect, or when to try again.
    private var linkDeadline: UInt64 = 0
    private var backOff = firstBackOff
    private var operations: [Operation?] = []
    private var freeOperations: [Int] = []
    /// By what libnbd calls them.
    private var commands: [Int64: Int] = [:]
    private var waiting: [Int] = []
    /// Whose thread is at work.
    private var served: Port?

    private let epoll: CInt
    private let timer: CInt
    private var watched: (descriptor: CInt, reads: Bool, writes: Bool)?
    /// In nanoseconds, both: when the timer is next readable (0: never), and when a command may have waited for too long.
    private var timerInstant: UInt64 = 0
    private var nextDeadline = UInt64.max

    private static let firstBackOff: UInt64 = 50_000_000
    private static let maxBackOff: UInt64 = 2_000_000_000
    private static let maxTrimByteCount: UInt64 = 1 << 30
    /// Before the reason when a server answers, and is of no use.
    private static let unfit = "unfit: "
    private static let abandoned = "its frontend has left before it was done"
    private static let lostWrites =
      "the connection ended after writes that were not flushed, which may be lost: the disk must connect anew"

    /// Connects, which takes as long as the options say at most.
    ///
    /// - Parameter export: what another connection of the store's has found, and this one must find, too.
    init(
      _ address: NBDAddress, _ options: NBDStoreOptions, _ disk: Disk = Disk(), like export: NBDExport? = nil
    ) throws(NBDStoreError) {
      (self.address, self.options, self.disk, self.export) = (address, options, disk, export)
      (epoll, timer) = (linux_epoll(), linux_timer())
      guard epoll >= 0, timer >= 0, linux_epoll_watch(epoll, timer, 1, 0) == 0 else {
        throw .cannotConnect(address, reason: "no file descriptor is left: raise the limit of open files")
      }
      begin(Uptime.now.nanoseconds)
      while link != nil, !isConnected {
        watch(Uptime.now.nanoseconds)
        Wakeup.wait(for: epoll, timeout: 100)
        service(Uptime.now.nanoseconds)
      }
      guard link != nil else {
        throw export == nil && reason.hasPrefix(Self.unfit)
          ? .unfit(address, reason: String(reason.dropFirst(Self.unfit.count)))
          : .cannotConnect(address, reason: reason)
      }
    }

    deinit {
      link = nil
      for operation in operations { operation?.bounce?.deallocate() }
      for descriptor in [epoll, timer] where descriptor >= 0 { _ = close(descriptor) }
    }

    /// Readable when ``serve(_:_:)`` has something to do.
    var descriptor: CInt { epoll }

    /// As it was first connected to, with its present size as far as that is whole sectors.
    var currentExport: NBDExport {
      lock.withLock { _ in
        var export = export!
        let byteCount = disk.byteCount.load(ordering: .relaxed)
        export.byteCount = byteCount - byteCount % UInt64(export.sectorByteCount)
        return export
      }
    }

    // MARK: For queues

    /// Begins the requests, or has them wait for a connection, and gives back what is done.
    func submit(_ requests: Span<StoreRequest>, from port: Port, to completions: inout StoreCompletions) {
      lock.withLock { _ in
        let now = Uptime.now.nanoseconds
        served = port
        for index in requests.indices {
          let number = admit(requests[index], port, now)
          if isConnected { start(number, now) } else { waiting.append(number) }
        }
        service(now)
        complete(port, &completions)
      }
    }

    /// Gives back what has been done since.
    func reap(for port: Port, into completions: inout StoreCompletions) {
      lock.withLock { _ in
        served = port
        service(Uptime.now.nanoseconds)
        complete(port, &completions)
      }
    }

    /// Ends what of it has not begun, and what is under way with its next step.
    func abandon(_ port: Port) {
      lock.withLock { _ in
        port.isAbandoned = true
        let numbers = waiting
        waiting.removeAll(keepingCapacity: true)
        for number in numbers {
          if operations[number]!.port === port { finish(number, fault: Self.abandoned) } else { waiting.append(number) }
        }
      }
    }

    private func complete(_ port: Port, _ completions: inout StoreCompletions) {
      if port.isSignalled {
        port.isSignalled = false
        port.wakeup.clear()
      }
      for (request, fault) in port.finished {
        if let fault {
          completions.fail(request, because: "the NBD server \(address): \(fault)")
        } else {
          completions.complete(request)
        }
      }
      port.finished.removeAll(keepingCapacity: true)
    }

    // MARK: Requests

    private func admit(_ request: StoreRequest, _ port: Port, _ now: UInt64) -> Int {
      let step: Operation.Step
      switch request.kind {
      case .read, .write: step = .transfer
      case .writeBarrier: step = .flushBefore
      case .flush: step = .flush
      case .discard, .secureDiscard: step = .discard
      }
      // A command has one run of bytes.
      let bounce = request.payload.count > 1 ? Bounce(request, alignment: 16) : nil
      let operation = Operation(
        request: bounce?.request ?? request, port: port, step: step, bounce: bounce,
        deadline: now + Self.nanoseconds(options.waitSeconds))
      if let number = freeOperations.popLast() {
        operations[number] = operation
        return number
      }
      operations.append(operation)
      return operations.count - 1
    }

    /// Gives the server what an operation has to do next.
    private func start(_ number: Int, _ now: UInt64) {
      guard let operation = operations[number] else { return }
      if operation.port.isAbandoned { return finish(number, fault: Self.abandoned) }
      guard let link, let export else { return waiting.append(number) }
      let (request, done) = (operation.request, operation.done)
      let command: Int64
      switch operation.step {
      case .flush, .flushBefore, .flushAfter:
        // As the protocol has it, what a server that knows no flush has answered is on its medium.
        guard !disk.hasLostWrites.load(ordering: .relaxed) else { return finish(number, fault: Self.lostWrites) }
        guard export.canFlush else { return advance(number, now) }
        operations[number]!.changeCount = disk.changeCount.load(ordering: .relaxed)
        command = link.flush()
      case .discard:
        guard export.canTrim else { return finish(number, fault: "it discards nothing") }
        command = link.trim(
          at: request.offset + done, byteCount: min(request.sectorCount * 512 - done, Self.maxTrimByteCount))
      case .transfer, .transferBetween:
        let bytes = transferred(operation, export)
        command =
          request.kind == .read
          ? link.read(bytes, at: request.offset + done) : link.write(bytes, at: request.offset + done)
      }
      guard command > 0 else {
        let fault = NBDLink.lastError.description
        // It has ended meanwhile, and nothing of the command is under way.
        return link.isDead ? waiting.append(number) : finish(number, fault: fault)
      }
      let deadline = now + Self.nanoseconds(options.requestSeconds)
      operations[number]!.deadline = deadline
      nextDeadline = min(nextDeadline, deadline)
      commands[command] = number
    }

    /// What the next command of a transfer moves.
    private func transferred(_ operation: Operation, _ export: NBDExport) -> SharedBytes {
      let rest = operation.request.payload.piece(after: Int(operation.done))
      return rest.slice(from: 0, count: min(rest.count, export.maxByteCount))
    }

    /// An operation's command has been done.
    private func advance(_ number: Int, _ now: UInt64) {
      guard let operation = operations[number], let export else { return }
      switch operation.step {
      case .flush, .flushBefore, .flushAfter: disk.flushedCount.max(operation.changeCount, ordering: .relaxed)
      case .transfer where operation.request.kind == .read: break
      case .transfer, .transferBetween, .discard: disk.changeCount.add(1, ordering: .relaxed)
      }
      switch operation.step {
      case .flush, .flushAfter: return finish(number, fault: nil)
      case .flushBefore:
        if operation.request.payload.byteCount == 0 { return finish(number, fault: nil) }
        operations[number]!.step = .transferBetween
      case .discard:
        let whole = operation.request.sectorCount * 512
        operations[number]!.done += min(whole - operation.done, Self.maxTrimByteCount)
        if operations[number]!.done == whole { return finish(number, fault: nil) }
      case .transfer, .transferBetween:
        operations[number]!.done += UInt64(transferred(operation, export).count)
        if operations[number]!.done == operation.request.payload.byteCount {
          if operation.step == .transfer { return finish(number, fault: nil) }
          operations[number]!.step = .flushAfter
        }
      }
      start(number, now)
    }

    private func finish(_ number: Int, fault: String?) {
      guard let operation = operations[number] else { return }
      if let bounce = operation.bounce {
        if fault == nil { bounce.finish() }
        bounce.deallocate()
      }
      operations[number] = nil
      freeOperations.append(number)
      let port = operation.port
      port.finished.append((operation.request, fault))
      if port !== served, !port.isSignalled {
        port.isSignalled = true
        port.wakeup.signal()
      }
    }

    // MARK: The connection

    /// Does all that can be done now, and has the descriptor tell of the rest.
    private func service(_ now: UInt64) {
      if let link {
        let ended = link.progress()
        while let (command, fault) = link.nextCompleted() {
          guard let number = commands.removeValue(forKey: command) else { continue }
          // What has ended with the connection has its reason below.
          if fault == nil { advance(number, now) } else { finish(number, fault: ended ?? fault) }
        }
        if let ended { lose(ended, now) } else if !isConnected { meet(link, now) } else { look(now) }
      }
      if link == nil, now >= linkDeadline { begin(now) }
      if isConnected {
        let numbers = waiting
        waiting.removeAll(keepingCapacity: true)
        for number in numbers { start(number, now) }
        if let link, link.isDead { lose(link.progress() ?? "it has closed the connection", now) }
      } else {
        giveUpWaiting(now)
      }
      watch(now)
    }

    private func begin(_ now: UInt64) {
      do throws(ResourceError) {
        link = try NBDLink(to: address)
        linkDeadline = now + Self.nanoseconds(options.connectSeconds)
        watched = nil
      } catch { lose(error.description, now) }
    }

    /// Takes a connection that is being made into use once it is.
    private func meet(_ link: NBDLink, _ now: UInt64) {
      guard link.isReady else {
        if now >= linkDeadline { lose("it does not answer", now) }
        return
      }
      do throws(ResourceError) {
        let found = try link.export()
        if let export {
          // Its size may be another: that is a disk that has been resized.
          guard found.sectorByteCount <= export.sectorByteCount, found.isReadOnly == export.isReadOnly else {
            throw ResourceError("it offers another disk than before")
          }
          self.export!.canFlush = found.canFlush
          self.export!.canTrim = found.canTrim
          self.export!.maxByteCount = found.maxByteCount
        } else {
          export = found
        }
        disk.byteCount.store(found.byteCount, ordering: .relaxed)
        (isConnected, backOff) = (true, Self.firstBackOff)
      } catch { lose(export == nil ? Self.unfit + error.description : error.description, now) }
    }

    /// A server that leaves a command without an answer for too long is given up.
    private func look(_ now: UInt64) {
      guard now >= nextDeadline else { return }
      var next = UInt64.max
      for number in commands.values { next = min(next, operations[number]!.deadline) }
      nextDeadline = next
      if now >= next { lose("it has not answered for \(Int(options.requestSeconds)) seconds", now) }
    }

    /// What is under way fails; whatever waits, waits for the next connection.
    private func lose(_ reason: String, _ now: UInt64) {
      // Closed first: libnbd has the requests' memory until then.
      link = nil
      if isConnected, export?.canFlush == true,
        disk.changeCount.load(ordering: .relaxed) > disk.flushedCount.load(ordering: .relaxed)
      {
        disk.hasLostWrites.store(true, ordering: .relaxed)
      }
      (isConnected, watched, self.reason) = (false, nil, reason)
      linkDeadline = now + backOff
      backOff = min(backOff * 2, Self.maxBackOff)
      for (_, number) in commands.sorted(by: { $0.key < $1.key }) { finish(number, fault: reason) }
      commands.removeAll(keepingCapacity: true)
    }

    private func giveUpWaiting(_ now: UInt64) {
      guard waiting.contains(where: { operations[$0]!.deadline <= now }) else { return }
      let numbers = waiting
      waiting.removeAll(keepingCapacity: true)
      for number in numbers {
        if operations[number]!.deadline <= now {
          finish(number, fault: reason.isEmpty ? "it does not answer" : reason)
        } else {
          waiting.append(number)
        }
      }
    }

    // MARK: Waiting

    private func watch(_ now: UInt64) {
      if let link, let wait = link.wait, !isConnected || watched.map({ $0 != wait }) ?? true {
        _ = linux_epoll_watch(epoll, wait.descriptor, wait.reads ? 1 : 0, wait.writes ? 1 : 0)
        watched = wait
      }
      var instant = isConnected ? (commands.isEmpty ? UInt64.max : nextDeadline) : linkDeadline
      if !isConnected { for number in waiting { instant = min(instant, operations[number]!.deadline) } }
      // A later instant is waited for when the earlier one has come.
      guard instant < timerInstant || timerInstant <= now else { return }
      timerInstant = instant == .max ? 0 : instant
      linux_timer_set(timer, timerInstant)
    }

    private static func nanoseconds(_ seconds: Double) -> UInt64 { UInt64(max(0, seconds) * 1e9) }
  }
#endif
