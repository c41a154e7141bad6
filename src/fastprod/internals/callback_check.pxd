cdef int check_callback(object function, str what) except -1
cdef int check_order(object function, str what) except -1
cdef int check_delivery_callback(object function) except -1
