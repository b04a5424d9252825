/// Values that are nothing but their bits, in memory of a fixed size, of which as much is used as has been appended.
///
/// For what is done for each request: the standard library's array asks at each change whether it is alone, and keeps itself
/// alive while it is looked at. Everything is inlined, since a call would cost more than what it does; and public, since
/// what is only the package's own is inlined in no other module.
@frozen @safe public struct PlainArray<Element: BitwiseCopyable>: ~Copyable {
  @usableFromInline let base: UnsafeMutablePointer<Element>
  /// Frees it.
  @usableFromInline let memory: PlainMemory
  @usableFromInline let capacity: Int
  @usableFromInline var used = 0

  @inlinable @inline(__always) public var count: Int { used }
  @inlinable @inline(__always) public var isEmpty: Bool { used == 0 }

  /// - Parameter capacity: positive.
  @inlinable public init(capacity: Int) {
    precondition(capacity > 0, "room for one element at least")
    self.capacity = capacity
    memory = PlainMemory(byteCount: capacity * MemoryLayout<Element>.stride, alignment: MemoryLayout<Element>.alignment)
    // Safe: as much as so many elements take, and aligned for them; it lives as long as we do.
    unsafe base = memory.start.bindMemory(to: Element.self, capacity: capacity)
  }

  /// As many as there is room for.
  @inlinable public init(repeating element: Element, count: Int) {
    self.init(capacity: count)
    unsafe base.initialize(repeating: element, count: count)
    used = count
  }

  /// - Precondition: there is room.
  @inlinable @inline(__always) public mutating func append(_ element: Element) {
    precondition(used < capacity, "a plain array has room")
    // Safe: within what was allocated.
    unsafe (base + used).initialize(to: element)
    used &+= 1
  }

  /// - Precondition: it is not empty.
  @inlinable @inline(__always) public mutating func removeLast() -> Element {
    precondition(used > 0, "a plain array has a last element")
    used &-= 1
    // Safe: it was initialised.
    return unsafe base[used]
  }

  @inlinable @inline(__always) public mutating func removeAll() { used = 0 }

  @inlinable @inline(__always) public subscript(index: Int) -> Element {
    get {
      precondition(index >= 0 && index < used, "index out of range")
      // Safe: initialised up to the count.
      return unsafe base[index]
    }
    set {
      precondition(index >= 0 && index < used, "index out of range")
      // Safe: as above, and whoever changes it has all of us for itself.
      unsafe base[index] = newValue
    }
  }

  /// Where the elements lie, as long as this lives.
  @inlinable @inline(__always) @unsafe public var start: UnsafePointer<Element> { unsafe UnsafePointer(base) }

  /// Lends the elements.
  @inlinable @inline(__always) public func withSpan<Result>(_ body: (Span<Element>) -> Result) -> Result {
    // Safe: initialised up to the count, and we are borrowed until `body` is done.
    body(unsafe Span(_unsafeStart: base, count: used))
  }

  /// Lends the elements to be changed.
  @inlinable @inline(__always) public mutating func withMutableSpan<Result>(
    _ body: (inout MutableSpan<Element>) -> Result
  ) -> Result {
    // Safe: initialised up to the count, and nobody else has us until `body` is done.
    var span = unsafe MutableSpan(_unsafeStart: base, count: used)
    return body(&span)
  }
}

// Sendable: the memory is nobody else's, and goes where we go.
extension PlainArray: @unchecked Sendable where Element: Sendable {}

/// Memory that is freed with whoever holds it.
///
/// Sendable: it never changes; what lies at the address is its holder's.
@safe @usableFromInline final class PlainMemory: @unchecked Sendable {
  @usableFromInline let start: UnsafeMutableRawPointer

  @usableFromInline init(byteCount: Int, alignment: Int) {
    unsafe start = .allocate(byteCount: byteCount, alignment: alignment)
  }

  deinit { unsafe start.deallocate() }
}
