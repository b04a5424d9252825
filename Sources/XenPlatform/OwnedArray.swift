/// A fixed number of values that cannot be copied, each used in place.
///
/// The standard library's array takes only copies; a class around each value would cost a check for exclusive access each time.
/// Public, since what is only the package's own is inlined in no other module.
@frozen @safe public struct OwnedArray<Element: ~Copyable>: ~Copyable {
  @usableFromInline let base: UnsafeMutablePointer<Element>
  @usableFromInline let capacity: Int
  @usableFromInline var used = 0

  @inlinable public var count: Int { used }

  /// - Parameter capacity: positive.
  @inlinable public init(capacity: Int) {
    self.capacity = capacity
    unsafe base = .allocate(capacity: capacity)
  }

  @inlinable deinit {
    unsafe base.deinitialize(count: used)
    unsafe base.deallocate()
  }

  /// - Precondition: there is room.
  @inlinable public mutating func append(_ element: consuming Element) {
    precondition(used < capacity, "an owned array has room")
    // Safe: within what was allocated, and nothing is there yet.
    unsafe (base + used).initialize(to: element)
    used += 1
  }

  @inlinable public subscript(index: Int) -> Element {
    _read {
      precondition(index >= 0 && index < used, "index out of range")
      // Safe: initialised up to the count; whoever reads has us borrowed.
      yield unsafe base[index]
    }
    _modify {
      precondition(index >= 0 && index < used, "index out of range")
      // Safe: as above, and whoever changes it has all of us for itself.
      yield unsafe &base[index]
    }
  }
}
